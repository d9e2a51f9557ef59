/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * libnlb: an application reports its health and load.
 *
 * The program runs on a host behind nlb load balancing units, beside nlb-agent, and says over the agent's local
 * socket that it is there, whether it works, how busy it is and what it can take. It gets new connections
 * accordingly, and none any more when it ends or crashes. See nlb_app_open(3).
 *
 * Functions return 0, or a negative error number that nlb_error_text() says more about:
 *
 *	-EINVAL		an argument; nothing was sent
 *	-ENOENT, -ECONNREFUSED, -ECONNRESET, -EPIPE
 *			the agent is not there
 *	-EACCES		this user may not open its socket
 *	-ETIMEDOUT	it has not answered in time
 *	-EREMOTEIO	it refuses
 *	-EBADMSG	its answer was not understood
 *
 * Whatever it is, the program goes on and calls again later: each call connects and registers if that has to be
 * done, also when the agent was restarted, and reports again what was reported last.
 *
 * All functions may be called by any number of threads at a time, with the same application, too; one waits for
 * the other then. None changes a signal disposition, raises SIGPIPE, or starts a thread. errno means nothing
 * after a call. A child of fork() must not use its parent's applications.
 */
#ifndef NLB_APP_H
#define NLB_APP_H

#include <nlb.h>

#ifdef __cplusplus
extern "C" {
#endif

/* An application. */
struct nlb_app;

/* Whether it works. */
enum nlb_app_health {
	NLB_APP_UNKNOWN = 0,	/* it gets no new connections */
	NLB_APP_HEALTHY = 1,
	NLB_APP_FAILING = 2,	/* it gets no new connections */
};

/* Whether it gets new connections, as far as somebody asks for it. */
enum nlb_app_state {
	NLB_APP_ACTIVE = 0,
	NLB_APP_DRAINING = 1,	/* it does not; those that it has go on */
	NLB_APP_INACTIVE = 2,	/* it does not, and those that it had are cut off */
};

/* What it is. Set up with NLB_APP_OPTIONS_INIT; what is 0 or NULL has its default. */
struct nlb_app_options {
	size_t size;		/* sizeof(struct nlb_app_options): later versions have more members */
	const char *socket;	/* where the agent listens; NULL: "/run/nlb-agent/socket" */
	const char *physical;	/* where the program listens; NULL: the host's address and the service's port */
	const char *protocol;	/* what is spoken, such as "http" */
	const char *detail;	/* what tells it from others at the same port, such as "/shop/" */
	uint32_t timeout_ms;	/* how long to wait for each answer; 0: 2000 */
	uint32_t stays;		/* 1: it is there when the program has ended, until nlb_app_unregister() */
};

#define NLB_APP_OPTIONS_INIT { sizeof(struct nlb_app_options), NULL, NULL, NULL, NULL, 0, 0 }

/* What the agent knows of it. */
struct nlb_app_status {
	size_t size;		/* sizeof(struct nlb_app_status), set by the caller */
	uint32_t health;	/* an enum nlb_app_health: the worst that was reported, or found by checks */
	uint32_t load;		/* percent of its capacity, averaged, as it was told last */
	uint32_t capacity;
	uint32_t target;	/* an enum nlb_app_state: what somebody asks for */
	uint32_t current;	/* what all load balancing units do; NLB_APP_DRAINING: no new connection comes */
};

#define NLB_APP_STATUS_INIT { sizeof(struct nlb_app_status), 0, 0, 0, 0, 0 }

/*
 * Make *app an application with this name on the host and the service vip, such as "192.0.2.10:80/tcp". With
 * NULL for vip, one that the agent's configuration file has. options may be NULL. Nothing is sent before another
 * function is called, so that a program starts whether the agent is there or not.
 */
int nlb_app_open(struct nlb_app **app, const char *name, const char *vip, const struct nlb_app_options *options);

/* Register, or say again that it is there: every few seconds, by programs that report nothing else. */
int nlb_app_register(struct nlb_app *app);

/* Report whether it works. One that registers is healthy if nothing else is said. */
int nlb_app_health(struct nlb_app *app, enum nlb_app_health health);

/* Report how busy it is, in percent of its capacity, 0 to 100, as often as is convenient. */
int nlb_app_load(struct nlb_app *app, unsigned int percent);

/* Report what it can take, compared with others of its kind, 0 to 99. One that says nothing has 50. */
int nlb_app_capacity(struct nlb_app *app, unsigned int capacity);

/* Ask for no new connections, with NLB_APP_DRAINING or NLB_APP_INACTIVE. */
int nlb_app_drain(struct nlb_app *app, enum nlb_app_state state);

/* Ask for them again. */
int nlb_app_undo(struct nlb_app *app);

/* What is known of it, into *status, which was set up with NLB_APP_STATUS_INIT. */
int nlb_app_status(struct nlb_app *app, struct nlb_app_status *status);

/* Say that it is not there any more. A later call registers it anew. */
int nlb_app_unregister(struct nlb_app *app);

/* Forget it. It is not there any more then, unless it stays. NULL is allowed. */
void nlb_app_close(struct nlb_app *app);

#ifdef __cplusplus
}
#endif

#endif
