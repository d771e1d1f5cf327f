/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Linux: an event loop, shared memory, the ivshmem server protocol from both ends (QEMU's
 * "ivshmem-spec"), and the AMP bus over it (design.md 9).
 *
 * A function with `err` writes one line for people there when it fails: what was wrong, and what to
 * do. VMSG_ERR_TEXT bytes are enough. Memory is allocated by *_open functions only. All descriptors
 * are close-on-exec. Sources: port/linux/.
 */
#ifndef VMSG_LINUX_H
#define VMSG_LINUX_H

#include <vmsg/amp.h>

struct epoll_event;
struct pollfd;

#define VMSG_ERR_TEXT 256u

/* CLOCK_MONOTONIC. The milliseconds are what vmsg_bus.now_ms wants. */
uint32_t vmsg_clock_ms(void);
uint64_t vmsg_clock_us(void);

/*
 * Tells systemd "READY=1", "STOPPING=1", ...; several lines may be sent at once. 1: told. 0: this
 * program was not started by systemd. Or a VMSG_ERR_*.
 */
int vmsg_sd_notify(const char *state);

/* ---- Event loop (events.c) ---- */

/*
 * Spinning is tried again less and less often while it does not pay (the peer is slow, or has no
 * processor to run on), at most once in 256 wake-ups, and every time once it does.
 */
#define VMSG_SPIN_NEVER   0u
#define VMSG_SPIN_ALWAYS  UINT32_MAX
#define VMSG_SPIN_DEFAULT 100u /* microseconds: longer than it takes to wake a peer */

struct vmsg_events;

/* A descriptor to look at; the caller's storage, from add to remove. */
struct vmsg_watch {
	int fd;
	uint32_t events; /* EPOLLIN ...; with EPOLLET each write to an eventfd calls once */
	void (*ready)(struct vmsg_watch *watch, uint32_t events);
	void *user;
};

struct vmsg_timer {
	void (*fire)(struct vmsg_timer *timer);
	void *user;
	/* Private. */
	struct vmsg_timer *next;
	uint64_t due_us;
	uint32_t period_ms;
	bool armed;
};

/* Something that is looked at in every turn of the loop, and again and again while it spins. */
struct vmsg_poller {
	/* True when it did something. Cheap when there is nothing to do. */
	bool (*poll)(struct vmsg_poller *poller);
	/*
	 * on: the loop is about to sleep, so let the peer notify. True when work has appeared and
	 * the loop must not sleep. Off: the loop spins, notifications are a waste. A loop that
	 * never spins never says off; on twice in a row is normal. May be NULL.
	 */
	bool (*doze)(struct vmsg_poller *poller, bool on);
	void *user;
	/* Private. */
	struct vmsg_poller *next;
	bool added;
};

/* Whether to spin after the next piece of work. */
struct vmsg_spin {
	uint32_t fails; /* times in a row that it found nothing */
	uint32_t skip;  /* times not to try */
};

struct vmsg_events {
	/* To be read, and spin_us written, at any time. */
	uint32_t spin_us; /* how long to poll after the last piece of work; VMSG_SPIN_* */
	uint32_t now_ms;  /* when the loop last looked at the clock */
	uint64_t wakes;   /* times it slept */
	/* Private. */
	int epoll_fd, signal_fd;
	bool stopped, spinning, one_cpu;
	bool may_spin, idle; /* after this wake-up; spinning and nothing found yet */
	struct vmsg_spin spin;
	uint32_t spins;
	uint64_t now_us, work_us, looked_us;
	struct vmsg_timer *timers;
	struct vmsg_poller *pollers, *next_poller;
	struct vmsg_watch signal_watch;
	void (*on_signal)(struct vmsg_events *events, int number);
	int batch_next, batch_count;
	struct epoll_event *batch;
	void *user; /* the owner's, untouched */
};

/* 0 or -errno. With one CPU to run on the loop never spins, except with VMSG_SPIN_ALWAYS. */
int vmsg_events_open(struct vmsg_events *events, uint32_t spin_us);
void vmsg_events_close(struct vmsg_events *events);

/* All of these may be called from inside any callback; a removed object is not called any more. */
int vmsg_events_add(struct vmsg_events *events, struct vmsg_watch *watch);
int vmsg_events_modify(struct vmsg_events *events, struct vmsg_watch *watch, uint32_t wanted);
void vmsg_events_remove(struct vmsg_events *events, struct vmsg_watch *watch);
void vmsg_events_start_timer(struct vmsg_events *events, struct vmsg_timer *timer, uint32_t ms,
			     uint32_t period_ms); /* period 0: once. Restarts a running one */
void vmsg_events_stop_timer(struct vmsg_events *events, struct vmsg_timer *timer);
void vmsg_events_add_poller(struct vmsg_events *events, struct vmsg_poller *poller);
void vmsg_events_remove_poller(struct vmsg_events *events, struct vmsg_poller *poller);

/*
 * Blocks the signals (a list that ends with 0) for this thread and those it starts from now on, and
 * calls on_signal from the loop instead. Once, before other threads exist. 0 or -errno.
 */
int vmsg_events_signals(struct vmsg_events *events, const int *numbers,
			void (*on_signal)(struct vmsg_events *events, int number));

/* Until vmsg_events_stop(). 0, or -errno when epoll fails. */
int vmsg_events_run(struct vmsg_events *events);
void vmsg_events_stop(struct vmsg_events *events);

/* One turn: polls, and sleeps up to max_ms (-1: no limit) unless there is something to do. */
int vmsg_events_turn(struct vmsg_events *events, int max_ms);

/* ---- Shared memory (shared.c) ---- */

struct vmsg_shared {
	uint8_t *ptr;
	uint64_t len_bytes;
	int fd;
	/*
	 * No one can make it shorter. Memory without the seal (a file, or what QEMU's server hands
	 * out) raises SIGBUS here if another process truncates it; see vmsg_shared_survive().
	 */
	bool sealed;
	volatile bool lost; /* that has happened: what is mapped here is nobody else's any more */
	struct vmsg_shared *next; /* private */
};

/* An anonymous file, sealed against shrinking and growing. len is a power of two >= 4096. */
int vmsg_shared_create(struct vmsg_shared *shared, const char *name, uint64_t len_bytes, char *err,
		       size_t err_size);
/* A named file, created with mode if missing, made longer if shorter. */
int vmsg_shared_open(struct vmsg_shared *shared, const char *path, uint64_t len_bytes,
		     uint32_t mode, char *err, size_t err_size);
/* A received descriptor, which becomes ours in every case. The size is the file's. */
int vmsg_shared_adopt(struct vmsg_shared *shared, int fd, char *err, size_t err_size);
/* Zeroes [0, len); gives the pages back to the system where it can. */
void vmsg_shared_clear(struct vmsg_shared *shared, uint64_t len_bytes);
void vmsg_shared_close(struct vmsg_shared *shared);

/*
 * For a program that is to outlive a peer who truncates shared memory: installs a handler of
 * SIGBUS, which puts zeros in the place of what is missing and sets lost. Other faults end the
 * program as ever. Shared memory is then touched, opened and closed by one thread only.
 */
void vmsg_shared_survive(void);
/* Makes truncated memory whole again: as long as it was, and mapped. 0 or -errno. */
int vmsg_shared_restore(struct vmsg_shared *shared);

/* ---- Listening Unix socket (listen.c) ---- */

#define VMSG_PATH_BYTES 108u /* with the final 0 */

struct vmsg_listener {
	int fd; /* non-blocking; -1: closed */
	char path[VMSG_PATH_BYTES];
	uint64_t device, inode; /* of the name */
};

/*
 * Listens on path. A stale socket is replaced; one that a living process serves is not
 * (VMSG_ERR_BUSY).
 */
int vmsg_listen(struct vmsg_listener *listener, const char *path, uint32_t mode, char *err,
		size_t err_size);
/* Closes, and removes the name unless it belongs to another by now. */
void vmsg_unlisten(struct vmsg_listener *listener);

/* ---- ivshmem server (ivshmem_server.c) ---- */

#define VMSG_IVSHMEM_MAX_PEERS 64u

struct vmsg_guard;
struct vmsg_ivshmem_server;

enum vmsg_ivshmem_state {
	VMSG_IVSHMEM_FREE,
	VMSG_IVSHMEM_WAITING, /* a client is there, but the slot is on hold: it knows nothing yet */
	VMSG_IVSHMEM_CONNECTED,
};

/* A place for one client: slot i serves it as peer i + 1, with memory of its own. */
struct vmsg_ivshmem_slot {
	struct vmsg_ivshmem_server *server;
	uint32_t index;
	struct vmsg_shared *memory; /* set by the owner */
	enum vmsg_ivshmem_state state;
	bool hold;    /* see vmsg_ivshmem_hold() */
	int bell_out; /* written to ring the client; -1 while not connected */
	int pid;      /* of the client, 0 if not known */
	void *user;
	/* Private. */
	struct vmsg_watch socket, bell;
	uint32_t since_ms;
	bool checked, hostile;
};

struct vmsg_ivshmem_counters {
	uint32_t accepted, refused; /* refused: no free slot */
	uint32_t garbage;           /* clients that sent something: dropped */
	uint32_t silent;            /* clients that did not read their greeting: dropped */
	uint32_t no_resources;      /* lost because of a limit of this system (descriptors) */
	uint32_t hostile;           /* clients that made their doorbell block us: dropped */
};

struct vmsg_ivshmem_server {
	struct vmsg_events *events;
	struct vmsg_ivshmem_slot *slots;
	uint32_t slot_count;
	/* The client has memory and doorbells. */
	void (*connected)(struct vmsg_ivshmem_slot *slot);
	/* It rang, at least once. */
	void (*doorbell)(struct vmsg_ivshmem_slot *slot);
	/* It is gone; hold the slot here if the memory is still in use. */
	void (*disconnected)(struct vmsg_ivshmem_slot *slot);
	struct vmsg_ivshmem_counters counters;
	void *user;
	/* Private. */
	struct vmsg_listener listener;
	struct vmsg_watch watch;
	struct vmsg_timer timer;
	struct vmsg_guard *guard;
	int spare_fd; /* given up to turn a client away when no descriptor is left */
	bool paused;
};

/*
 * Serves path. events, slots (with memory), slot_count and the callbacks are set before. Errors as
 * vmsg_listen().
 */
int vmsg_ivshmem_open(struct vmsg_ivshmem_server *server, const char *path, uint32_t mode,
		      char *err, size_t err_size);
/* Ends every connection and the service. */
void vmsg_ivshmem_close(struct vmsg_ivshmem_server *server);
/* Sets or clears hold. Who comes while it is set waits, and is connected when it is cleared. */
void vmsg_ivshmem_hold(struct vmsg_ivshmem_slot *slot, bool hold);
/* Rings the slot's client. */
void vmsg_ivshmem_ring_slot(struct vmsg_ivshmem_slot *slot);
/* Drops the client; disconnected() is called. */
void vmsg_ivshmem_drop(struct vmsg_ivshmem_slot *slot);

/* ---- ivshmem client (ivshmem_client.c) ---- */

#define VMSG_IVSHMEM_MAX_ALSO 8u

struct vmsg_lazy_bell;

struct vmsg_ivshmem_client {
	struct vmsg_shared memory;
	int64_t id; /* our peer number */
	bool gone;  /* the server or peer 0 left: nothing rings any more */
	uint32_t sleeps, rings;
	/* Private. */
	int socket, epoll_fd;
	int bell_in;  /* our vector 0 */
	int bell_out; /* vector 0 of peer 0 */
	uint8_t partial[8];
	uint32_t partial_bytes;
	int partial_fd;
	bool greeted; /* the version was right */
	struct vmsg_lazy_bell *lazy;
};

/*
 * Connects and waits until it has the memory, the own doorbell and that of peer 0. Blocks for at
 * most timeout_ms. VMSG_ERR_NODEV: nobody listens there. VMSG_ERR_BUSY: no free slot.
 * VMSG_ERR_PROTO, VMSG_ERR_TIMEDOUT, or another -errno.
 */
int vmsg_ivshmem_connect(struct vmsg_ivshmem_client *client, const char *path, uint32_t timeout_ms,
			 char *err, size_t err_size);
/* Also after a failed connect: does nothing then. */
void vmsg_ivshmem_disconnect(struct vmsg_ivshmem_client *client);
void vmsg_ivshmem_ring(struct vmsg_ivshmem_client *client);
/*
 * From now on a ring goes out with the next wait, in one system call, or with
 * vmsg_ivshmem_flush(). For programs that wait soon after they rang. VMSG_ERR_NOTSUP: this system
 * cannot do that; nothing changes then.
 */
int vmsg_ivshmem_ring_lazily(struct vmsg_ivshmem_client *client);
void vmsg_ivshmem_flush(struct vmsg_ivshmem_client *client);
/*
 * Sleeps until the doorbell rings, for at most ms milliseconds (-1: no limit), or until one of the
 * `count` descriptors in `also` is ready (at most VMSG_IVSHMEM_MAX_ALSO; their revents are set). 1:
 * rung or ready; 0: not; VMSG_ERR_SHUTDOWN: the server is gone.
 */
int vmsg_ivshmem_wait(struct vmsg_ivshmem_client *client, int ms, struct pollfd *also,
		      uint32_t count);

/* ---- AMP bus: the address (amp_address.c) ---- */

/* "amp:PATH[,key=value...]", for both sides; the daemon uses all of it. */
struct vmsg_amp_address {
	char path[VMSG_PATH_BYTES];
	/* layout=layout|spsc; NULL: the daemon takes layout, the driver side looks */
	const struct vmsg_amp_format *format;
	uint64_t size_bytes;       /* size=: memory of each slot, default 64M; power of two */
	uint32_t peers;            /* peers=: slots, default 1 */
	enum vmsg_dialect dialect; /* dialect=; VMSG_AUTO when not given: daemon v2, driver auto */
	uint16_t element_bytes;    /* msgsize=, 64 to 1024, multiple of 8 */
	uint16_t element_count;    /* elements=, 2 to 4096, default 63 */
	uint8_t words;             /* words=, default 2 */
	uint8_t bits_per_device;   /* bits=, default 8 */
	bool masks;                /* masks=on|off */
	bool strict;               /* strict=on|off: STRICT_CONFIG_GENERATION, default off */
	uint32_t spin_us;          /* spin=: microseconds, "never" or "always"; driver side */
	uint32_t mode;             /* mode=: of the socket and the file, octal, default 600 */
	char file[256];            /* file=: memory of slot 0 is this file; else "" */
};

#define VMSG_AMP_MAX_ELEMENT 1024u
#define VMSG_AMP_MIN_BYTES   65536u /* smallest memory of a slot */

/* 0, or VMSG_ERR_INVAL with err naming the key and what would be right. */
int vmsg_amp_parse(const char *text, struct vmsg_amp_address *address, char *err, size_t err_size);
/* Microseconds, "never" or "always", as spin= takes it. False: none of these. */
bool vmsg_spin_parse(const char *text, uint32_t *spin_us);

/* ---- AMP bus: device side (amp_server.c) ---- */

struct vmsg_amp_server;

/*
 * A device that made progress is looked at in every turn of a spinning loop, and its driver is told
 * not to kick. Others wait for a kick: looking at them may cost a system call.
 */
struct vmsg_amp_hot {
	struct vmsg_device *device;
	uint32_t progress; /* moves with its queues */
	uint32_t idle;     /* looks in a row that found nothing */
	bool hot;
};

#define VMSG_AMP_HOT 16u

/*
 * One slot: a bus that lives as long as the server, whoever is connected. Add devices to
 * &slot->amp.bus with mem = &slot->mem at any time; amp.peer_state may be set.
 */
struct vmsg_amp_slot {
	struct vmsg_amp amp; /* first */
	struct vmsg_amp_server *server;
	uint32_t index;
	struct vmsg_mem mem;
	bool connected; /* a client has the memory */
	/* Private. */
	struct vmsg_shared memory;
	struct vmsg_region region;
	bool cleaning; /* the devices have not all stopped since the last client left */
	bool look, look_all; /* in the next turn: at the queue, at all devices too */
	struct vmsg_amp_hot hot[VMSG_AMP_HOT];
	uint8_t frame[VMSG_AMP_MAX_ELEMENT], element[VMSG_AMP_MAX_ELEMENT];
};

struct vmsg_amp_server {
	/* Set before open; NULL: not called. */
	void (*connected)(struct vmsg_amp_slot *slot);
	void (*disconnected)(struct vmsg_amp_slot *slot); /* its devices were reset */
	void *user;
	/* To be read. */
	struct vmsg_amp_slot *slots;
	uint32_t slot_count;
	struct vmsg_ivshmem_server ivshmem; /* counters */
	struct vmsg_amp_address address;
	/* Private. */
	struct vmsg_events *events;
	struct vmsg_ivshmem_slot *places;
	struct vmsg_poller poller;
	struct vmsg_timer tick;
	bool spinning;
};

/* Serves the address on the loop. Nothing else is to be called for it but close. */
int vmsg_amp_server_open(struct vmsg_amp_server *server, struct vmsg_events *events,
			 const struct vmsg_amp_address *address, char *err, size_t err_size);
/*
 * Says good-bye to the peers, resets the devices, frees all; devices still on a bus then have none,
 * and may be destroyed. Blocks while a device has I/O in flight, turning the loop for at most 5 s:
 * not to be called from inside a callback. Does nothing after a failed open.
 */
void vmsg_amp_server_close(struct vmsg_amp_server *server);

/* ---- AMP bus: driver side (amp_client.c) ---- */

struct vmsg_amp_client {
	struct vmsg_amp amp;     /* first; use &client->amp.bus for requests and drivers */
	struct vmsg_arena arena; /* for virtqueues and buffers, behind the queue area */
	struct vmsg_mem mem;     /* the shared memory by AMP address, for looking around */
	struct vmsg_ivshmem_client link;
	uint32_t spin_us; /* may be changed at any time */
	/*
	 * More descriptors that end a wait (a terminal, a signalfd); see vmsg_ivshmem_wait(). Set
	 * them around waits of your own only: a blocking function of the library waits on.
	 */
	struct pollfd *also;
	uint32_t also_count;
	/* Private. */
	struct vmsg_region region;
	bool quiet, one_cpu, opened;
	uint32_t mark, looked_ms; /* progress at the last sleep; when the socket was looked at */
	struct vmsg_spin spin;
	uint8_t frame[VMSG_AMP_MAX_ELEMENT], element[VMSG_AMP_MAX_ELEMENT];
};

/*
 * Connects to a daemon and waits until messages can pass: vmsg_bus_get_devices(),
 * vmsg_driver_init(), ... may follow. dialect outranks the address unless it is VMSG_AUTO. Blocks
 * for at most timeout_ms. Errors as vmsg_ivshmem_connect(). Once the daemon is gone, the bus's wait
 * returns VMSG_ERR_SHUTDOWN and all requests and drivers have ended; close, and open again.
 */
int vmsg_amp_client_open(struct vmsg_amp_client *client, const struct vmsg_amp_address *address,
			 enum vmsg_dialect dialect, uint32_t timeout_ms, char *err,
			 size_t err_size);
/* Also after a failed open: does nothing then. */
void vmsg_amp_client_close(struct vmsg_amp_client *client);
/* The wait of the bus: receives what came, spins, sleeps up to ms. 0 or VMSG_ERR_SHUTDOWN. */
int vmsg_amp_client_wait(struct vmsg_amp_client *client, uint32_t ms);

#endif
