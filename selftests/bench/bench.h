/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parts of nlb-bench share.
 */

#ifndef NLB_BENCH_H
#define NLB_BENCH_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Ends the program with a message; with %m in it, that of errno. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Nanoseconds of CLOCK_MONOTONIC. */
uint64_t now_ns(void);

/* The network namespaces that "ip netns add" has made. */
int netns_open(const char *name);
void netns_enter(int fd);

struct sockaddr_in address(const char *ip, uint16_t port);
int listen_on(struct sockaddr_in addr, int backlog);
/* What waits at this socket (connect, accept, send, recv) gives up after 20 seconds. */
void set_patience(int fd);

/*
 * Connections of the kind that is moved: the client has sent some bytes, the
 * program that has the connection now has read all but the last of them.
 */
struct scene {
	int client_ns, origin_ns, target_ns; /* target_ns is -1 if nobody listens there */
	struct sockaddr_in vip;
	int origin; /* the listener from which connections are moved */
	int target; /* the one of the application; -1 if there is none */
	size_t sent, unread;
};

void scene_open(struct scene *scene, const char *client, const char *origin,
		const char *target, const char *vip, size_t sent, size_t unread);
void scene_close(struct scene *scene);

struct connection {
	int client, server;
	struct sockaddr_in peer;
};

struct connection scene_connect(const struct scene *scene);
/* Dies unless `app` has the unread bytes, and all goes on both ways; closes both ends. */
void scene_verify(const struct scene *scene, int client, int app);

/* Sorts the values. p in percent. */
uint64_t percentile(uint64_t *values, size_t count, unsigned int p);

/* "name":{"p10":...,"p50":...,"p90":...,"p99":...} */
void print_spread(const char *name, uint64_t *values, size_t count);

/* Generic netlink: the migrate command. */
struct migrator;

struct migration {
	uint64_t export_ns, inject_ns, freeze_ns, total_ns, unread;
};

struct migrator *migrator_open(void); /* in the calling thread's namespace */
void migrator_close(struct migrator *migrator);
/* False: the connection stayed, `why` has the text. */
bool migrate(struct migrator *migrator, int fd, struct in_addr peer, uint32_t timeout_ms,
	     struct migration *result, const char **why);

int cmd_clock(int argc, char **argv);
int cmd_repair(int argc, char **argv);
int cmd_migrate(int argc, char **argv);
int cmd_rate(int argc, char **argv);
int cmd_load(int argc, char **argv);
int cmd_send(int argc, char **argv);

#endif
