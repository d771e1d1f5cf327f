/* SPDX-License-Identifier: BSD-3-Clause */
/* Telling dialects apart by the first answers (wire.md 5.3 to 5.5). */
#include <vmsg/msg.h>
#include <vmsg/port.h>

static bool all_zero(const uint8_t *bytes, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++) {
		if (bytes[i])
			return false;
	}
	return true;
}

/* The answer fills a slot and its size says nothing: look at the payload (wire.md 5.4). */
static enum vmsg_dialect learn_from_payload(const uint8_t *payload)
{
	uint32_t bits = vmsg_get32(payload + 8);
	uint32_t blocks = vmsg_get32(payload + 24);

	if (bits && bits % 32 == 0 && bits <= 4096 && all_zero(payload + 24, 20))
		return VMSG_V1;
	return blocks >= 1 && blocks <= 64 ? VMSG_V2 : VMSG_AUTO;
}

static enum vmsg_dialect learn_from_info(const uint8_t *wire, uint32_t len)
{
	uint32_t token = vmsg_get16(wire + 4);
	uint32_t size = vmsg_get16(wire + 6);

	/* rfc2 has msg_size where we sent token 6, and no token of ours is 30. */
	if (token == 30 && len >= 30)
		return VMSG_RFC2;
	if (size == 52)
		return VMSG_V2;
	if (size >= 32 && size < 52)
		return VMSG_V1;
	if (size > 52 && size <= len)
		return learn_from_payload(wire + 8);
	return VMSG_AUTO;
}

/* v1 has (count, next_offset) where v2 has (next_offset, count): see which fits the bitmap. */
static enum vmsg_dialect learn_from_devices(const uint8_t *wire, uint32_t len)
{
	uint32_t size = vmsg_get16(wire + 6);
	uint32_t first, second, map;
	bool v1, v2;

	if (size < 14 || size > len)
		return VMSG_AUTO;
	map = size - 14;
	first = vmsg_get16(wire + 10);
	second = vmsg_get16(wire + 12);
	v1 = first % 8 == 0 && first / 8 == map;
	v2 = (second + 7) / 8 == map;
	if (v1 == v2)
		return VMSG_AUTO;
	return v1 ? VMSG_V1 : VMSG_V2;
}

enum vmsg_dialect vmsg_msg_learn(const void *buf, uint32_t len)
{
	const uint8_t *wire = buf;

	if (len < 8 || !(wire[0] & VMSG_TYPE_RESPONSE))
		return VMSG_AUTO;
	if (wire[0] & VMSG_TYPE_BUS)
		return wire[1] == VMSG_GET_DEVICES ? learn_from_devices(wire, len) : VMSG_AUTO;
	return wire[1] == VMSG_GET_DEVICE_INFO ? learn_from_info(wire, len) : VMSG_AUTO;
}
