/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The event loop: descriptors by epoll, timers, signals, and pollers that it spins over for a while
 * after the last piece of work before it lets the peers ring and sleeps.
 *
 * No wake-up is lost. A poller's doze(on) first asks for notifications and then looks once more:
 * what came before is seen by that look, what comes after rings. Eventfds are watched with EPOLLET
 * and never read: every write to one puts it on epoll's ready list whatever its counter says, and
 * epoll_wait takes it off before the callback looks, so a write after that look wakes again.
 */
#include "private.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include <vmsg/port.h>

#define BATCH       16
#define CLOCK_SPINS 16 /* idle looks at the pollers per look at the clock */
#define LOOK_US     250 /* descriptors and timers wait for at most this long while the loop spins */

static void look_at_clock(struct vmsg_events *events)
{
	events->now_us = vmsg_clock_us();
	events->now_ms = (uint32_t)(events->now_us / 1000u);
}

int vmsg_events_open(struct vmsg_events *events, uint32_t spin_us)
{
	*events = (struct vmsg_events){
		.spin_us = spin_us,
		.epoll_fd = -1,
		.signal_fd = -1,
		.may_spin = true,
	};
	events->one_cpu = vmsg_one_cpu();
	events->batch = calloc(BATCH, sizeof(*events->batch));
	if (!events->batch)
		return -ENOMEM;
	events->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (events->epoll_fd < 0) {
		int rc = -errno;

		vmsg_events_close(events);
		return rc;
	}
	look_at_clock(events);
	return 0;
}

void vmsg_events_close(struct vmsg_events *events)
{
	vmsg_close_fd(&events->signal_fd);
	vmsg_close_fd(&events->epoll_fd);
	free(events->batch);
	events->batch = NULL;
}

static int control(struct vmsg_events *events, int op, struct vmsg_watch *watch)
{
	struct epoll_event event = { .events = watch->events, .data.ptr = watch };

	return epoll_ctl(events->epoll_fd, op, watch->fd, &event) < 0 ? -errno : 0;
}

int vmsg_events_add(struct vmsg_events *events, struct vmsg_watch *watch)
{
	return control(events, EPOLL_CTL_ADD, watch);
}

int vmsg_events_modify(struct vmsg_events *events, struct vmsg_watch *watch, uint32_t wanted)
{
	watch->events = wanted;
	return control(events, EPOLL_CTL_MOD, watch);
}

void vmsg_events_remove(struct vmsg_events *events, struct vmsg_watch *watch)
{
	control(events, EPOLL_CTL_DEL, watch);
	/* What epoll_wait has already reported about it must not be delivered. */
	for (int i = events->batch_next; i < events->batch_count; i++) {
		if (events->batch[i].data.ptr == watch)
			events->batch[i].data.ptr = NULL;
	}
}

/* Keeps the list in the order of due times. */
static void insert_timer(struct vmsg_events *events, struct vmsg_timer *timer)
{
	struct vmsg_timer **link = &events->timers;

	while (*link && (*link)->due_us <= timer->due_us)
		link = &(*link)->next;
	timer->next = *link;
	*link = timer;
	timer->armed = true;
}

void vmsg_events_start_timer(struct vmsg_events *events, struct vmsg_timer *timer, uint32_t ms,
			     uint32_t period_ms)
{
	vmsg_events_stop_timer(events, timer);
	/* Later than any clock read so far: a timer that restarts itself cannot hold the loop. */
	timer->due_us = vmsg_clock_us() + (uint64_t)ms * 1000u + 1;
	timer->period_ms = period_ms;
	insert_timer(events, timer);
}

void vmsg_events_stop_timer(struct vmsg_events *events, struct vmsg_timer *timer)
{
	struct vmsg_timer **link = &events->timers;

	if (!timer->armed)
		return;
	while (*link && *link != timer)
		link = &(*link)->next;
	VMSG_ASSERT(*link);
	*link = timer->next;
	timer->armed = false;
}

static void fire_timers(struct vmsg_events *events)
{
	uint64_t now_us = events->now_us;

	while (events->timers && events->timers->due_us <= now_us) {
		struct vmsg_timer *timer = events->timers;

		events->timers = timer->next;
		timer->armed = false;
		if (timer->period_ms) {
			uint64_t period_us = (uint64_t)timer->period_ms * 1000u;

			/* Missed ones are not made up for. */
			timer->due_us += period_us;
			if (timer->due_us <= now_us)
				timer->due_us = now_us + period_us;
			insert_timer(events, timer);
		}
		timer->fire(timer);
	}
}

void vmsg_events_add_poller(struct vmsg_events *events, struct vmsg_poller *poller)
{
	VMSG_ASSERT(!poller->added);
	poller->next = events->pollers;
	events->pollers = poller;
	poller->added = true;
}

void vmsg_events_remove_poller(struct vmsg_events *events, struct vmsg_poller *poller)
{
	struct vmsg_poller **link = &events->pollers;

	if (!poller->added)
		return;
	while (*link && *link != poller)
		link = &(*link)->next;
	VMSG_ASSERT(*link);
	*link = poller->next;
	poller->added = false;
	if (events->next_poller == poller)
		events->next_poller = poller->next;
}

static bool poll_all(struct vmsg_events *events)
{
	struct vmsg_poller *poller = events->pollers;
	bool worked = false;

	for (; poller; poller = events->next_poller) {
		events->next_poller = poller->next;
		if (poller->poll(poller))
			worked = true;
	}
	return worked;
}

static bool doze_all(struct vmsg_events *events, bool on)
{
	struct vmsg_poller *poller = events->pollers;
	bool work = false;

	events->spinning = !on;
	for (; poller; poller = events->next_poller) {
		events->next_poller = poller->next;
		if (poller->doze && poller->doze(poller, on))
			work = true;
	}
	return work;
}

static void take_signals(struct vmsg_watch *watch, uint32_t ready)
{
	struct vmsg_events *events = watch->user;
	struct signalfd_siginfo info;

	(void)ready;
	while (read(events->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		events->on_signal(events, (int)info.ssi_signo);
}

int vmsg_events_signals(struct vmsg_events *events, const int *numbers,
			void (*on_signal)(struct vmsg_events *events, int number))
{
	sigset_t set;
	int rc;

	sigemptyset(&set);
	for (; *numbers; numbers++)
		sigaddset(&set, *numbers);
	events->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (events->signal_fd < 0)
		return -errno;
	events->on_signal = on_signal;
	events->signal_watch = (struct vmsg_watch){
		.fd = events->signal_fd,
		.events = EPOLLIN,
		.ready = take_signals,
		.user = events,
	};
	rc = vmsg_events_add(events, &events->signal_watch);
	if (rc == 0)
		rc = -pthread_sigmask(SIG_BLOCK, &set, NULL);
	return rc;
}

static void note_work(struct vmsg_events *events)
{
	events->work_us = events->now_us;
	if (events->idle)
		vmsg_spin_paid(&events->spin, true);
	events->idle = false;
}

/* Looks at descriptors and timers, sleeping up to timeout_ms for them. */
static int look(struct vmsg_events *events, int timeout_ms)
{
	int count;

	events->batch_next = events->batch_count = 0;
	count = epoll_wait(events->epoll_fd, events->batch, BATCH, timeout_ms);
	if (count < 0)
		return errno == EINTR ? 0 : -errno;
	look_at_clock(events);
	events->looked_us = events->now_us;
	if (count > 0)
		note_work(events);
	events->batch_count = count;
	while (events->batch_next < events->batch_count) {
		const struct epoll_event *event = &events->batch[events->batch_next++];
		struct vmsg_watch *watch = event->data.ptr;

		if (watch)
			watch->ready(watch, event->events);
	}
	fire_timers(events);
	return 0;
}

static int time_to_sleep(const struct vmsg_events *events, int max_ms)
{
	uint64_t wait_ms;

	if (!events->timers)
		return max_ms;
	if (events->timers->due_us <= events->now_us)
		return 0;
	wait_ms = (events->timers->due_us - events->now_us + 999u) / 1000u;
	if (wait_ms > INT32_MAX)
		wait_ms = INT32_MAX;
	return max_ms >= 0 && (uint64_t)max_ms < wait_ms ? max_ms : (int)wait_ms;
}

/* How long to spin after the last piece of work. */
static uint32_t spin_time(const struct vmsg_events *events)
{
	if (events->spin_us == VMSG_SPIN_ALWAYS)
		return VMSG_SPIN_ALWAYS;
	return events->one_cpu || !events->may_spin ? 0 : events->spin_us;
}

/* Lets everything notify, and sleeps unless something has come up before that. */
static int go_to_sleep(struct vmsg_events *events, int max_ms)
{
	int rc;

	look_at_clock(events);
	if (events->idle)
		vmsg_spin_paid(&events->spin, false);
	events->idle = false;
	if ((events->spin_us || events->spinning) && doze_all(events, true)) {
		look_at_clock(events);
		events->work_us = events->now_us;
		return 0;
	}
	events->wakes++;
	rc = look(events, time_to_sleep(events, max_ms));
	/* A timer is no reason to expect more. */
	if (events->batch_count > 0)
		events->may_spin = vmsg_spin_try(&events->spin);
	return rc;
}

int vmsg_events_turn(struct vmsg_events *events, int max_ms)
{
	uint32_t spin_us = spin_time(events);
	bool was_stopped = events->stopped;
	bool worked = poll_all(events);

	if (worked || ++events->spins % CLOCK_SPINS == 0)
		look_at_clock(events);
	if (worked)
		note_work(events);
	if (events->stopped && !was_stopped)
		return 0;
	if (!worked && spin_us != VMSG_SPIN_ALWAYS && events->now_us - events->work_us >= spin_us)
		return go_to_sleep(events, max_ms);

	if (spin_us && !events->spinning)
		doze_all(events, false);
	if (events->now_us - events->looked_us >= LOOK_US)
		return look(events, 0);
	events->idle = !worked;
	if (!worked)
		vmsg_relax();
	return 0;
}

int vmsg_events_run(struct vmsg_events *events)
{
	int rc = 0;

	while (rc == 0 && !events->stopped)
		rc = vmsg_events_turn(events, -1);
	return rc;
}

void vmsg_events_stop(struct vmsg_events *events)
{
	events->stopped = true;
}
