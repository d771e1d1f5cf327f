/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Engine "threads", for where io_uring is refused: a few threads do the system calls. They see one
 * request each and nothing else; results are taken in by the thread that owns the bus.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "file.h"

#define THREADS_MAX 64u
#define STACK_BYTES (256u << 10)

struct pool {
	struct vmsg_file *file;
	struct file_list batch; /* queued, not started; of the owner alone */
	pthread_mutex_t mutex;
	pthread_cond_t work;
	/* Under the mutex. */
	struct file_list todo, ended;
	bool stop;
	atomic_bool any_ended; /* a hint that saves the mutex */
	uint32_t count;
	pthread_t threads[THREADS_MAX];
};

static void *run(void *arg)
{
	struct pool *pool = arg;

	pthread_mutex_lock(&pool->mutex);
	while (!pool->stop) {
		struct vmsg_blk_request *request = file_list_take(&pool->todo);
		struct file_op op;
		ssize_t result;

		if (!request) {
			pthread_cond_wait(&pool->work, &pool->mutex);
			continue;
		}
		pthread_mutex_unlock(&pool->mutex);
		file_next_op(pool->file, request, &op);
		result = file_perform(&op);
		pthread_mutex_lock(&pool->mutex);
		request->scratch = (uint64_t)result;
		/* Before the bell, or somebody looks for what rang and finds nothing. */
		atomic_store(&pool->any_ended, true);
		if (!pool->ended.first)
			eventfd_write(pool->file->watch_fd, 1); /* far from full, so it works */
		file_list_add(&pool->ended, request);
	}
	pthread_mutex_unlock(&pool->mutex);
	return NULL;
}

/* Signals are the program's, not these threads'. */
static int start_threads(struct pool *pool, uint32_t threads)
{
	pthread_attr_t attr;
	sigset_t all, before;
	int rc = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	while (pool->count < threads && pool->count < THREADS_MAX) {
		rc = pthread_create(&pool->threads[pool->count], &attr, run, pool);
		if (rc)
			break;
		pool->count++;
	}
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return pool->count ? 0 : -rc;
}

static void threads_close(struct vmsg_file *file)
{
	struct pool *pool = file->engine_data;

	pthread_mutex_lock(&pool->mutex);
	pool->stop = true;
	pthread_cond_broadcast(&pool->work);
	pthread_mutex_unlock(&pool->mutex);
	for (uint32_t i = 0; i < pool->count; i++)
		pthread_join(pool->threads[i], NULL);
	pthread_cond_destroy(&pool->work);
	pthread_mutex_destroy(&pool->mutex);
	if (file->watch_fd >= 0)
		close(file->watch_fd);
	file->watch_fd = -1;
	free(pool);
}

static int threads_open(struct vmsg_file *file, uint32_t depth, uint32_t threads)
{
	struct pool *pool = calloc(1, sizeof(*pool));
	int rc;

	(void)depth;
	if (!pool)
		return -ENOMEM;
	pool->file = file;
	pthread_mutex_init(&pool->mutex, NULL);
	pthread_cond_init(&pool->work, NULL);
	file->engine_data = pool;
	file->watch_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = file->watch_fd < 0 ? -errno : start_threads(pool, threads);
	if (rc)
		threads_close(file);
	return rc;
}

static void threads_queue(struct vmsg_file *file, struct vmsg_blk_request *request)
{
	struct pool *pool = file->engine_data;

	file_list_add(&pool->batch, request);
}

static void threads_start(struct vmsg_file *file)
{
	struct pool *pool = file->engine_data;
	struct vmsg_blk_request *request = file_list_take(&pool->batch);

	if (!request)
		return;
	pthread_mutex_lock(&pool->mutex);
	for (; request; request = file_list_take(&pool->batch)) {
		file_list_add(&pool->todo, request);
		pthread_cond_signal(&pool->work);
	}
	pthread_mutex_unlock(&pool->mutex);
}

static void threads_cancel(struct vmsg_file *file, struct vmsg_blk_request *request)
{
	struct pool *pool = file->engine_data;
	bool found = file_list_remove(&pool->batch, request);

	if (!found) {
		pthread_mutex_lock(&pool->mutex);
		found = file_list_remove(&pool->todo, request);
		pthread_mutex_unlock(&pool->mutex);
	}
	/* One that a thread is at ends when it ends. */
	if (found)
		file_cancelled(request);
}

static uint32_t threads_poll(struct vmsg_file *file)
{
	struct pool *pool = file->engine_data;
	struct vmsg_blk_request *request;
	struct file_list ended;
	uint32_t count = 0;
	eventfd_t bells;

	if (!atomic_load_explicit(&pool->any_ended, memory_order_acquire))
		return 0;
	pthread_mutex_lock(&pool->mutex);
	ended = pool->ended;
	pool->ended.first = NULL;
	atomic_store(&pool->any_ended, false);
	eventfd_read(file->watch_fd, &bells);
	pthread_mutex_unlock(&pool->mutex);
	while ((request = file_list_take(&ended)) != NULL) {
		count++;
		if (file_step(file, request, (ssize_t)request->scratch))
			file_list_add(&pool->batch, request);
	}
	threads_start(file);
	return count;
}

const struct file_engine file_threads = {
	.name = "threads",
	.open = threads_open,
	.close = threads_close,
	.queue = threads_queue,
	.start = threads_start,
	.cancel = threads_cancel,
	.poll = threads_poll,
};
