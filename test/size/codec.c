/* SPDX-License-Identifier: BSD-3-Clause */
/* What the message codec alone weighs: all messages, all dialects, both ways. */
#include <vmsg/msg.h>

static uint8_t frame[VMSG_MSG_DEFAULT];
static struct vmsg_msg msg;

int main(void)
{
	int len = vmsg_msg_decode(VMSG_V2, frame, sizeof(frame), &msg);

	if (len < 0)
		return len;
	return vmsg_msg_encode(VMSG_V2, &msg, frame, sizeof(frame));
}
