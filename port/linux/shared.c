/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Shared memory: made here, or received from a peer.
 *
 * Memory made here is sealed against shrinking, so no peer can take pages away under our feet. A
 * named file cannot be sealed: whoever may write it may also truncate it, and then this process
 * ends with SIGBUS, unless it has asked to survive: a handler is global, so a library has no say
 * in that.
 */
#include "private.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vmsg/port.h>

#define PAGE      4096u
#define MAX_BYTES ((uint64_t)1 << 51) /* half of what a memory reference can say */

static bool is_power_of_two(uint64_t value)
{
	return value && !(value & (value - 1));
}

/* ---- Truncation ---- */

static struct vmsg_shared *unsealed; /* what may be truncated */

static bool contains(const struct vmsg_shared *shared, uintptr_t at)
{
	return at - (uintptr_t)shared->ptr < shared->len_bytes;
}

/* Only system calls, and memory that the thread which has just touched it does not change now. */
static void on_fault(int number, siginfo_t *info, void *context)
{
	uintptr_t at = (uintptr_t)info->si_addr & ~(uintptr_t)(PAGE - 1);
	struct vmsg_shared *shared = unsealed;
	int saved = errno;

	(void)context;
	while (shared && !contains(shared, at))
		shared = shared->next;
	if (!shared || mmap((void *)at, (size_t)((uintptr_t)shared->ptr + shared->len_bytes - at),
			    PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
			    0) == MAP_FAILED) {
		signal(number, SIG_DFL); /* it faults again */
		return;
	}
	shared->lost = true;
	errno = saved;
}

void vmsg_shared_survive(void)
{
	struct sigaction action = { .sa_flags = SA_SIGINFO };

	action.sa_sigaction = on_fault;
	sigemptyset(&action.sa_mask);
	sigaction(SIGBUS, &action, NULL);
}

static void forget(struct vmsg_shared *shared)
{
	struct vmsg_shared **link = &unsealed;

	while (*link && *link != shared)
		link = &(*link)->next;
	if (*link)
		*link = shared->next;
}

int vmsg_shared_restore(struct vmsg_shared *shared)
{
	struct stat st;

	if (shared->sealed)
		return 0;
	if (fstat(shared->fd, &st) < 0 ||
	    ((uint64_t)st.st_size < shared->len_bytes &&
	     ftruncate(shared->fd, (off_t)shared->len_bytes) < 0))
		return -errno;
	if (shared->lost &&
	    mmap(shared->ptr, (size_t)shared->len_bytes, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_FIXED, shared->fd, 0) == MAP_FAILED)
		return -errno;
	shared->lost = false;
	return 0;
}

/* ---- Memory ---- */

/* Maps shared->fd; the descriptor is closed when that fails. */
static int map(struct vmsg_shared *shared, char *err, size_t err_size)
{
	void *ptr = MAP_FAILED;
	int seals, rc = ENOMEM;

	if (shared->len_bytes <= SIZE_MAX / 2) {
		ptr = mmap(NULL, (size_t)shared->len_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
			   shared->fd, 0);
		rc = errno;
	}
	if (ptr == MAP_FAILED) {
		vmsg_close_fd(&shared->fd);
		return vmsg_fail(err, err_size, -rc, "cannot map %llu bytes of shared memory: %s",
				 (unsigned long long)shared->len_bytes, strerror(rc));
	}
	seals = fcntl(shared->fd, F_GET_SEALS);
	shared->sealed = seals >= 0 && (seals & F_SEAL_SHRINK);
	shared->ptr = ptr;
	if (!shared->sealed) {
		shared->next = unsealed;
		unsealed = shared;
	}
	return 0;
}

static int check_size(uint64_t len_bytes, char *err, size_t err_size)
{
	if (is_power_of_two(len_bytes) && len_bytes >= PAGE && len_bytes <= MAX_BYTES)
		return 0;
	return vmsg_fail(err, err_size, VMSG_ERR_INVAL,
			 "the size of shared memory is a power of two from 4K, not %llu",
			 (unsigned long long)len_bytes);
}

int vmsg_shared_create(struct vmsg_shared *shared, const char *name, uint64_t len_bytes, char *err,
		       size_t err_size)
{
	int rc;

	*shared = (struct vmsg_shared){ .fd = -1, .len_bytes = len_bytes };
	if (check_size(len_bytes, err, err_size))
		return VMSG_ERR_INVAL;
	shared->fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (shared->fd < 0) {
		rc = errno;
		return vmsg_fail(err, err_size, -rc, "cannot make shared memory: %s", strerror(rc));
	}
	if (ftruncate(shared->fd, (off_t)len_bytes) < 0 ||
	    fcntl(shared->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		rc = errno;
		vmsg_shared_close(shared);
		return vmsg_fail(err, err_size, -rc, "cannot make shared memory of %llu bytes: %s",
				 (unsigned long long)len_bytes, strerror(rc));
	}
	return map(shared, err, err_size);
}

/* A longer file is used as far as len_bytes: the memory of a machine may hold more. */
static int fit_file(int fd, const char *path, uint64_t len_bytes, char *err, size_t err_size)
{
	struct stat st;
	int rc;

	if (fstat(fd, &st) < 0) {
		rc = errno;
		return vmsg_fail(err, err_size, -rc, "%s: %s", path, strerror(rc));
	}
	if (!S_ISREG(st.st_mode))
		return vmsg_fail(err, err_size, VMSG_ERR_INVAL, "%s is not a regular file", path);
	if ((uint64_t)st.st_size < len_bytes && ftruncate(fd, (off_t)len_bytes) < 0) {
		rc = errno;
		return vmsg_fail(err, err_size, -rc, "cannot make %s %llu bytes long: %s", path,
				 (unsigned long long)len_bytes, strerror(rc));
	}
	return 0;
}

int vmsg_shared_open(struct vmsg_shared *shared, const char *path, uint64_t len_bytes,
		     uint32_t mode, char *err, size_t err_size)
{
	int rc;

	*shared = (struct vmsg_shared){ .fd = -1, .len_bytes = len_bytes };
	if (check_size(len_bytes, err, err_size))
		return VMSG_ERR_INVAL;
	/* Not blocking, so that a FIFO at this place cannot hold us. */
	shared->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, (mode_t)mode);
	if (shared->fd < 0) {
		rc = errno;
		return vmsg_fail(err, err_size, -rc, "cannot open %s: %s", path, strerror(rc));
	}
	rc = fit_file(shared->fd, path, len_bytes, err, err_size);
	if (rc < 0) {
		vmsg_shared_close(shared);
		return rc;
	}
	return map(shared, err, err_size);
}

int vmsg_shared_adopt(struct vmsg_shared *shared, int fd, char *err, size_t err_size)
{
	struct stat st;
	int rc = 0;

	*shared = (struct vmsg_shared){ .fd = fd };
	if (fstat(fd, &st) < 0)
		rc = vmsg_fail(err, err_size, -errno, "the shared memory's descriptor is bad: %s",
			       strerror(errno));
	else if (!S_ISREG(st.st_mode))
		rc = vmsg_fail(err, err_size, VMSG_ERR_PROTO,
			       "the descriptor given as shared memory is not memory");
	else if (st.st_size < (off_t)PAGE || st.st_size % (off_t)PAGE ||
		 (uint64_t)st.st_size > MAX_BYTES)
		rc = vmsg_fail(err, err_size, VMSG_ERR_PROTO,
			       "the shared memory has %lld bytes, which is not a number of pages",
			       (long long)st.st_size);
	if (rc < 0) {
		vmsg_shared_close(shared);
		return rc;
	}
	shared->len_bytes = (uint64_t)st.st_size;
	return map(shared, err, err_size);
}

void vmsg_shared_clear(struct vmsg_shared *shared, uint64_t len_bytes)
{
	VMSG_ASSERT(len_bytes <= shared->len_bytes);
	if (fallocate(shared->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
		      (off_t)len_bytes) < 0)
		memset(shared->ptr, 0, (size_t)len_bytes);
}

void vmsg_shared_close(struct vmsg_shared *shared)
{
	forget(shared);
	if (shared->ptr)
		munmap(shared->ptr, (size_t)shared->len_bytes);
	vmsg_close_fd(&shared->fd);
	shared->ptr = NULL;
}
