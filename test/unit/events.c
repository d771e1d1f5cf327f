/* SPDX-License-Identifier: BSD-3-Clause */
/* The event loop of the Linux port: descriptors, timers, pollers, signals, and when it sleeps. */
#include "test.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <vmsg/linux.h>

/* Counts what a callback saw; the last field is what it should do about it. */
struct spy {
	struct vmsg_events *events;
	struct vmsg_watch watch;
	struct spy *remove;
	uint32_t calls, seen;
	bool stop, read;
};

static void open_loop(struct vmsg_events *events, uint32_t spin_us)
{
	CHECK_EQ(vmsg_events_open(events, spin_us), 0);
	/* Where the tests run must not decide what they test. */
	events->one_cpu = false;
}

static void on_ready(struct vmsg_watch *watch, uint32_t events)
{
	struct spy *spy = watch->user;
	uint64_t value;

	spy->calls++;
	spy->seen |= events;
	if (spy->read)
		spy->seen |= read(watch->fd, &value, sizeof(value)) == 8 ? 0x10000 : 0;
	if (spy->remove) {
		vmsg_events_remove(spy->events, &spy->remove->watch);
		spy->remove = NULL;
	}
	if (spy->stop)
		vmsg_events_stop(spy->events);
}

static void add_spy(struct vmsg_events *events, struct spy *spy, uint32_t wanted)
{
	*spy = (struct spy){ .events = events };
	spy->watch.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	CHECK(spy->watch.fd >= 0);
	spy->watch.events = wanted;
	spy->watch.ready = on_ready;
	spy->watch.user = spy;
	CHECK_EQ(vmsg_events_add(events, &spy->watch), 0);
}

static void ring(const struct spy *spy)
{
	static const uint64_t one = 1;

	CHECK_EQ(write(spy->watch.fd, &one, sizeof(one)), 8);
}

static void drop_spy(struct spy *spy)
{
	vmsg_events_remove(spy->events, &spy->watch);
	close(spy->watch.fd);
}

/* ---- Descriptors ---- */

static void watch_levels(void *arg)
{
	struct vmsg_events events;
	struct spy spy;

	(void)arg;
	open_loop(&events, 0);
	add_spy(&events, &spy, EPOLLIN);
	CHECK_EQ(vmsg_events_turn(&events, 0), 0);
	CHECK_EQ(spy.calls, 0);
	ring(&spy);
	for (uint32_t i = 1; i <= 3; i++) {
		CHECK_EQ(vmsg_events_turn(&events, 1000), 0);
		CHECK_EQ(spy.calls, i);
	}
	spy.read = true;
	vmsg_events_turn(&events, 0);
	CHECK(spy.seen & 0x10000);
	vmsg_events_turn(&events, 0);
	CHECK_EQ(spy.calls, 4);
	ring(&spy);
	CHECK_EQ(vmsg_events_modify(&events, &spy.watch, 0), 0);
	vmsg_events_turn(&events, 0);
	CHECK_EQ(spy.calls, 4);
	CHECK_EQ(vmsg_events_modify(&events, &spy.watch, EPOLLIN), 0);
	vmsg_events_turn(&events, 0);
	CHECK_EQ(spy.calls, 5);
	drop_spy(&spy);
	vmsg_events_close(&events);
}

/* What amp_server.c relies on: an eventfd that is never read wakes once per write, or burst. */
static void watch_edges(void *arg)
{
	struct vmsg_events events;
	struct spy spy;

	(void)arg;
	open_loop(&events, 0);
	add_spy(&events, &spy, EPOLLIN | EPOLLET);
	for (uint32_t i = 1; i <= 1000; i++) {
		ring(&spy);
		vmsg_events_turn(&events, 1000);
		CHECK_EQ(spy.calls, i);
		vmsg_events_turn(&events, 0);
		CHECK_EQ(spy.calls, i);
	}
	ring(&spy);
	ring(&spy);
	vmsg_events_turn(&events, 1000);
	vmsg_events_turn(&events, 0);
	CHECK_EQ(spy.calls, 1001);
	drop_spy(&spy);
	vmsg_events_close(&events);
}

static void remove_in_callback(void *arg)
{
	struct vmsg_events events;
	struct spy spies[3];
	uint32_t total = 0;

	(void)arg;
	/* All are ready in one batch; whichever comes first removes both others, then itself. */
	open_loop(&events, 0);
	for (uint32_t i = 0; i < 3; i++)
		add_spy(&events, &spies[i], EPOLLIN);
	for (uint32_t i = 0; i < 3; i++) {
		spies[i].remove = &spies[(i + 1) % 3];
		ring(&spies[i]);
	}
	vmsg_events_turn(&events, 1000);
	for (uint32_t i = 0; i < 3; i++)
		total += spies[i].calls;
	/* A removes B, C (still there) removes A: two calls, whatever the order. */
	CHECK_EQ(total, 2);
	for (uint32_t i = 0; i < 3; i++)
		drop_spy(&spies[i]);
	add_spy(&events, &spies[0], EPOLLIN);
	spies[0].remove = &spies[0];
	ring(&spies[0]);
	vmsg_events_turn(&events, 1000);
	vmsg_events_turn(&events, 0);
	CHECK_EQ(spies[0].calls, 1);
	close(spies[0].watch.fd);
	vmsg_events_close(&events);
}

static void many_watches(void *arg)
{
	struct vmsg_events events;
	static struct spy spies[100];

	(void)arg;
	open_loop(&events, 0);
	for (uint32_t i = 0; i < 100; i++) {
		add_spy(&events, &spies[i], EPOLLIN | EPOLLET);
		ring(&spies[i]);
	}
	for (uint32_t i = 0; i < 20; i++)
		vmsg_events_turn(&events, 0);
	for (uint32_t i = 0; i < 100; i++) {
		CHECK_EQ(spies[i].calls, 1);
		drop_spy(&spies[i]);
	}
	vmsg_events_close(&events);
}

static void bad_descriptor(void *arg)
{
	struct vmsg_watch watch = { .fd = 9999, .events = EPOLLIN, .ready = on_ready };
	struct vmsg_events events;

	(void)arg;
	open_loop(&events, 0);
	CHECK_EQ(vmsg_events_add(&events, &watch), -EBADF);
	vmsg_events_close(&events);
}

/* ---- Timers ---- */

struct tick {
	struct vmsg_timer timer;
	struct vmsg_events *events;
	uint32_t fired, stop_at;
	bool restart;
	struct tick *stops;
};

static void on_tick(struct vmsg_timer *timer)
{
	struct tick *tick = timer->user;

	tick->fired++;
	if (tick->restart)
		vmsg_events_start_timer(tick->events, timer, 0, 0);
	if (tick->stops)
		vmsg_events_stop_timer(tick->events, &tick->stops->timer);
	if (tick->fired == tick->stop_at)
		vmsg_events_stop(tick->events);
}

static void init_tick(struct vmsg_events *events, struct tick *tick)
{
	*tick = (struct tick){ .timer = { .fire = on_tick }, .events = events };
	tick->timer.user = tick;
}

static void timers(void *arg)
{
	uint64_t start_us = vmsg_clock_us(), took_us;
	struct vmsg_events events;
	struct tick once, often, never;

	(void)arg;
	open_loop(&events, 0);
	init_tick(&events, &once);
	init_tick(&events, &often);
	init_tick(&events, &never);
	vmsg_events_start_timer(&events, &never.timer, 100000, 0);
	vmsg_events_start_timer(&events, &often.timer, 5, 5);
	vmsg_events_start_timer(&events, &once.timer, 1000, 0);
	vmsg_events_start_timer(&events, &once.timer, 12, 0); /* earlier after all */
	often.stop_at = 6;
	CHECK_EQ(vmsg_events_run(&events), 0);
	took_us = vmsg_clock_us() - start_us;
	CHECK_EQ(often.fired, 6);
	CHECK_EQ(once.fired, 1);
	CHECK_EQ(never.fired, 0);
	CHECK(!once.timer.armed);
	CHECK(often.timer.armed);
	CHECK(took_us >= 30000);
	vmsg_events_stop_timer(&events, &never.timer);
	vmsg_events_stop_timer(&events, &never.timer);
	vmsg_events_stop_timer(&events, &often.timer);
	CHECK(!events.timers);
	vmsg_events_close(&events);
}

static void timer_in_timer(void *arg)
{
	struct vmsg_events events;
	struct tick first, second;

	(void)arg;
	open_loop(&events, 0);
	init_tick(&events, &first);
	init_tick(&events, &second);
	first.stops = &second;
	first.timer.user = &first;
	vmsg_events_start_timer(&events, &first.timer, 1, 0);
	vmsg_events_start_timer(&events, &second.timer, 2, 0);
	usleep(10000); /* both are due */
	vmsg_events_turn(&events, 100);
	CHECK_EQ(first.fired, 1);
	CHECK_EQ(second.fired, 0);
	CHECK(!second.timer.armed);

	/* A timer that always starts itself again at once leaves room for everything else. */
	first.restart = true;
	first.stops = NULL;
	second.stop_at = 1;
	vmsg_events_start_timer(&events, &first.timer, 0, 0);
	vmsg_events_start_timer(&events, &second.timer, 20, 0);
	CHECK_EQ(vmsg_events_run(&events), 0);
	CHECK_EQ(second.fired, 1);
	CHECK(first.fired > 2);
	vmsg_events_close(&events);
}

/* A loop that was away does not make up for what it missed. */
static void timer_missed(void *arg)
{
	struct vmsg_events events;
	struct tick tick;

	(void)arg;
	open_loop(&events, 0);
	init_tick(&events, &tick);
	vmsg_events_start_timer(&events, &tick.timer, 2, 2);
	usleep(50000);
	vmsg_events_turn(&events, 0);
	CHECK_EQ(tick.fired, 1);
	vmsg_events_close(&events);
}

/* ---- Pollers and spinning ---- */

struct worker {
	struct vmsg_poller poller;
	struct vmsg_events *events;
	uint32_t polls, busy;  /* calls; how many of the next ones find something */
	uint32_t armed, disarmed;
	uint32_t late;         /* how many times work shows up just when the loop would sleep */
	uint32_t after;        /* finds something once, after so many looks */
	struct worker *remove;
	bool stop;
};

static bool on_poll(struct vmsg_poller *poller)
{
	struct worker *worker = poller->user;

	worker->polls++;
	if (worker->remove) {
		vmsg_events_remove_poller(worker->events, &worker->remove->poller);
		worker->remove = NULL;
	}
	if (worker->stop)
		vmsg_events_stop(worker->events);
	if (worker->after && --worker->after == 0)
		return true;
	if (!worker->busy)
		return false;
	worker->busy--;
	return true;
}

static bool on_doze(struct vmsg_poller *poller, bool on)
{
	struct worker *worker = poller->user;

	if (!on) {
		worker->disarmed++;
		return false;
	}
	worker->armed++;
	if (!worker->late)
		return false;
	worker->late--;
	return true;
}

static void add_worker(struct vmsg_events *events, struct worker *worker)
{
	*worker = (struct worker){ .events = events };
	worker->poller = (struct vmsg_poller){ .poll = on_poll, .doze = on_doze, .user = worker };
	vmsg_events_add_poller(events, &worker->poller);
}

static void turn_for(struct vmsg_events *events, uint32_t ms)
{
	uint64_t end_us = vmsg_clock_us() + ms * 1000u;

	while (vmsg_clock_us() < end_us)
		CHECK_EQ(vmsg_events_turn(events, (int)ms), 0);
}

static void blocking(void *arg)
{
	struct vmsg_events events;
	struct worker worker;
	struct spy spy;
	uint64_t wakes;

	(void)arg;
	open_loop(&events, VMSG_SPIN_NEVER);
	add_worker(&events, &worker);
	add_spy(&events, &spy, EPOLLIN | EPOLLET);
	turn_for(&events, 20);
	/* One look, one sleep. */
	CHECK(worker.polls <= 3);
	CHECK_EQ(worker.armed + worker.disarmed, 0);
	wakes = events.wakes;
	for (uint32_t i = 0; i < 10; i++) {
		ring(&spy);
		vmsg_events_turn(&events, 1000);
	}
	CHECK_EQ(spy.calls, 10);
	CHECK_EQ(events.wakes - wakes, 10);
	/* Work of a poller is followed by another look, not by a sleep. */
	worker.busy = 3;
	worker.polls = 0;
	for (uint32_t i = 0; i < 4; i++)
		vmsg_events_turn(&events, 0);
	CHECK_EQ(worker.busy, 0);
	CHECK_EQ(worker.polls, 4);
	CHECK_EQ(worker.armed + worker.disarmed, 0);
	drop_spy(&spy);
	vmsg_events_close(&events);
}

static void adaptive(void *arg)
{
	struct vmsg_events events;
	struct worker worker;
	struct rusage before, after;
	bool good = false;
	uint32_t polls;

	(void)arg;
	/*
	 * Spins after work, with notifications off, and then sleeps with them on; a machine that is
	 * busy elsewhere may need more than one try to show it.
	 */
	for (uint32_t i = 0; i < 50 && !good; i++) {
		if (i)
			vmsg_events_close(&events);
		open_loop(&events, 2000);
		add_worker(&events, &worker);
		worker.busy = 1;
		turn_for(&events, 30);
		good = worker.polls > 50 && worker.disarmed == 1 && worker.armed >= 1 &&
		       !events.spinning;
	}
	CHECK(good);
	polls = worker.polls;
	/* Idle, it costs nothing. */
	getrusage(RUSAGE_THREAD, &before);
	turn_for(&events, 200);
	getrusage(RUSAGE_THREAD, &after);
	CHECK(worker.polls - polls <= 3);
	CHECK_EQ(worker.disarmed, 1);
	CHECK((after.ru_utime.tv_sec - before.ru_utime.tv_sec) * 1000000 +
		      after.ru_utime.tv_usec - before.ru_utime.tv_usec <
	      50000);
	vmsg_events_remove_poller(&events, &worker.poller);
	vmsg_events_close(&events);
}

/* Spinning that never pays is tried less and less, and comes back once it pays. */
static void gives_up(void *arg)
{
	struct vmsg_events events;
	struct worker worker;
	struct spy spy;
	uint32_t tries;

	(void)arg;
	open_loop(&events, 200);
	add_worker(&events, &worker);
	add_spy(&events, &spy, EPOLLIN | EPOLLET);
	for (uint32_t i = 0; i < 300; i++) {
		ring(&spy);
		turn_for(&events, 1);
	}
	CHECK(spy.calls >= 300);
	CHECK(worker.disarmed >= 3);
	CHECK(worker.disarmed <= 12);
	CHECK(events.spin.fails > 2);
	/* The last spin before each sleep is for nothing, so one failure is normal. */
	for (uint32_t i = 0; i < 2000 && events.spin.fails > 1; i++) {
		worker.after = 10;
		ring(&spy);
		turn_for(&events, 1);
	}
	CHECK(events.spin.fails <= 1);
	tries = worker.disarmed;
	for (uint32_t i = 0; i < 60; i++) {
		worker.after = 10;
		ring(&spy);
		turn_for(&events, 1);
	}
	CHECK(worker.disarmed - tries >= 15);
	drop_spy(&spy);
	vmsg_events_close(&events);
}

/* Work that appears between the last look and the sleep is not slept over. */
static void late_work(void *arg)
{
	struct vmsg_events events;
	struct worker worker;
	uint64_t start_us, wakes;

	(void)arg;
	open_loop(&events, 100);
	add_worker(&events, &worker);
	turn_for(&events, 5);
	wakes = events.wakes;
	worker.late = 1;
	start_us = vmsg_clock_us();
	vmsg_events_turn(&events, 10000);
	CHECK(vmsg_clock_us() - start_us < 5000000);
	CHECK_EQ(events.wakes, wakes);
	CHECK_EQ(worker.late, 0);
	vmsg_events_close(&events);
}

/* A loop that always finds work still looks at its descriptors and timers. */
static void no_starving(void *arg)
{
	struct vmsg_events events;
	struct worker worker;
	struct tick tick;
	struct spy spy;

	(void)arg;
	for (uint32_t mode = 0; mode < 3; mode++) {
		open_loop(&events, mode == 0 ? VMSG_SPIN_ALWAYS : mode == 1 ? 1000 : 0);
		add_worker(&events, &worker);
		add_spy(&events, &spy, EPOLLIN | EPOLLET);
		init_tick(&events, &tick);
		worker.busy = mode == 0 ? 0 : UINT32_MAX;
		spy.stop = true;
		tick.stop_at = 1;
		ring(&spy);
		CHECK_EQ(vmsg_events_run(&events), 0);
		CHECK_EQ(spy.calls, 1);
		events.stopped = false;
		vmsg_events_start_timer(&events, &tick.timer, 3, 0);
		CHECK_EQ(vmsg_events_run(&events), 0);
		CHECK_EQ(tick.fired, 1);
		CHECK_EQ(events.wakes, 0);
		drop_spy(&spy);
		vmsg_events_close(&events);
	}
}

static void one_cpu(void *arg)
{
	struct vmsg_events events;
	struct worker worker;
	cpu_set_t all, one;
	bool found;

	(void)arg;
	CHECK_EQ(sched_getaffinity(0, sizeof(all), &all), 0);
	CPU_ZERO(&one);
	for (size_t i = 0; i < CPU_SETSIZE; i++) {
		if (CPU_ISSET(i, &all)) {
			CPU_SET(i, &one);
			break;
		}
	}
	CHECK_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
	CHECK_EQ(vmsg_events_open(&events, 1000000), 0);
	found = events.one_cpu;
	sched_setaffinity(0, sizeof(all), &all);
	CHECK(found);
	/* The other side could not run while we spin. */
	add_worker(&events, &worker);
	worker.busy = 1;
	turn_for(&events, 10);
	CHECK(worker.polls < 10);
	vmsg_events_close(&events);
}

static void remove_poller(void *arg)
{
	struct vmsg_events events;
	struct worker first, second, third;

	(void)arg;
	open_loop(&events, 0);
	add_worker(&events, &third);
	add_worker(&events, &second);
	add_worker(&events, &first);
	first.remove = &second;
	vmsg_events_turn(&events, 0);
	CHECK_EQ(first.polls, 1);
	CHECK_EQ(second.polls, 0);
	CHECK_EQ(third.polls, 1);
	third.remove = &third;
	vmsg_events_turn(&events, 0);
	vmsg_events_turn(&events, 0);
	CHECK_EQ(third.polls, 2);
	CHECK_EQ(first.polls, 3);
	vmsg_events_remove_poller(&events, &second.poller);
	vmsg_events_remove_poller(&events, &first.poller);
	CHECK(!events.pollers);
	/* Stopping from a poller does not wait for the next event. */
	add_worker(&events, &first);
	first.stop = true;
	CHECK_EQ(vmsg_events_run(&events), 0);
	CHECK_EQ(events.wakes, 3);
	vmsg_events_close(&events);
}

/* ---- Signals and the clock ---- */

static int signals_seen[65];

static void on_signal(struct vmsg_events *events, int number)
{
	signals_seen[number]++;
	if (number == SIGTERM)
		vmsg_events_stop(events);
}

static void signals(void *arg)
{
	static const int numbers[] = { SIGUSR1, SIGTERM, 0 };
	struct vmsg_events events;
	sigset_t old;

	(void)arg;
	pthread_sigmask(SIG_BLOCK, NULL, &old);
	open_loop(&events, 0);
	CHECK_EQ(vmsg_events_signals(&events, numbers, on_signal), 0);
	raise(SIGUSR1);
	vmsg_events_turn(&events, 1000);
	CHECK_EQ(signals_seen[SIGUSR1], 1);
	raise(SIGTERM);
	CHECK_EQ(vmsg_events_run(&events), 0);
	CHECK_EQ(signals_seen[SIGTERM], 1);
	vmsg_events_close(&events);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void clocks(void *arg)
{
	uint64_t us = vmsg_clock_us();
	uint32_t ms = vmsg_clock_ms();

	(void)arg;
	CHECK(ms - (uint32_t)(us / 1000) < 1000);
	usleep(3000);
	CHECK(vmsg_clock_us() - us >= 3000);
	CHECK(vmsg_clock_ms() - ms >= 2);
}

static void sd_notify(void *arg)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	socklen_t size;
	char path[64], buf[64] = "";
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	(void)arg;
	CHECK(fd >= 0);
	unsetenv("NOTIFY_SOCKET");
	CHECK_EQ(vmsg_sd_notify("READY=1"), 0);
	snprintf(path, sizeof(path), "@vmsg-test-%d", (int)getpid());
	memcpy(name.sun_path, path, strlen(path));
	name.sun_path[0] = 0;
	size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
	CHECK_EQ(bind(fd, (struct sockaddr *)&name, size), 0);
	setenv("NOTIFY_SOCKET", path, 1);
	CHECK_EQ(vmsg_sd_notify("READY=1\nSTATUS=serving"), 1);
	CHECK_EQ(recv(fd, buf, sizeof(buf), MSG_DONTWAIT), 22);
	CHECK_STR(buf, "READY=1\nSTATUS=serving");
	close(fd);
	CHECK_EQ(vmsg_sd_notify("STOPPING=1"), -ECONNREFUSED);
	setenv("NOTIFY_SOCKET", "relative", 1);
	CHECK_EQ(vmsg_sd_notify("STOPPING=1"), VMSG_ERR_INVAL);
	unsetenv("NOTIFY_SOCKET");
}

static const struct test tests[] = {
	{ "watch_levels", watch_levels, NULL },
	{ "watch_edges", watch_edges, NULL },
	{ "remove_in_callback", remove_in_callback, NULL },
	{ "many_watches", many_watches, NULL },
	{ "bad_descriptor", bad_descriptor, NULL },
	{ "timers", timers, NULL },
	{ "timer_in_timer", timer_in_timer, NULL },
	{ "timer_missed", timer_missed, NULL },
	{ "blocking", blocking, NULL },
	{ "adaptive", adaptive, NULL },
	{ "gives_up", gives_up, NULL },
	{ "late_work", late_work, NULL },
	{ "no_starving", no_starving, NULL },
	{ "one_cpu", one_cpu, NULL },
	{ "remove_poller", remove_poller, NULL },
	{ "signals", signals, NULL },
	{ "clocks", clocks, NULL },
	{ "sd_notify", sd_notify, NULL },
};

int main(int argc, char **argv)
{
	return test_main("events", tests, sizeof(tests) / sizeof(*tests), argc, argv);
}
