// SPDX-License-Identifier: GPL-2.0
/*
 * Migrations by the kernel: the migrate command, its cost, its rate, its memory.
 */

#define _GNU_SOURCE
#include "bench.h"

#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/nlb_migrator.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SOL_NETLINK
#define SOL_NETLINK 270
#endif

struct migrator {
	int fd;
	uint16_t family;
	uint32_t seq;
	char text[256];
	unsigned char buffer[8192] __attribute__((aligned(8)));
};

static void put(struct nlmsghdr *message, uint16_t type, const void *value, uint16_t len)
{
	struct nlattr *attr = (void *)((char *)message + NLMSG_ALIGN(message->nlmsg_len));

	attr->nla_type = type;
	attr->nla_len = (uint16_t)(NLA_HDRLEN + len);
	memcpy((char *)attr + NLA_HDRLEN, value, len);
	message->nlmsg_len = NLMSG_ALIGN(message->nlmsg_len) + NLA_ALIGN(attr->nla_len);
}

static const struct nlattr *find(const void *attrs, size_t len, uint16_t type)
{
	const char *at = attrs;

	while (len >= NLA_HDRLEN) {
		const struct nlattr *attr = (const void *)at;
		size_t step = NLA_ALIGN(attr->nla_len);

		if (attr->nla_len < NLA_HDRLEN || attr->nla_len > len)
			break;
		if ((attr->nla_type & NLA_TYPE_MASK) == type)
			return attr;
		if (step >= len)
			break;
		at += step;
		len -= step;
	}
	return NULL;
}

/* An unsigned number of any length. */
static uint64_t number(const void *attrs, size_t len, uint16_t type)
{
	const struct nlattr *attr = find(attrs, len, type);
	const void *value = (const char *)attr + NLA_HDRLEN;

	if (!attr)
		die("the kernel's answer has no attribute %u", type);
	switch (attr->nla_len - NLA_HDRLEN) {
	case 2:
		return *(const uint16_t *)value;
	case 4:
		return *(const uint32_t *)value;
	case 8: {
		uint64_t wide;

		memcpy(&wide, value, sizeof(wide));
		return wide;
	}
	default:
		die("attribute %u has %u bytes", type, attr->nla_len);
	}
}

/* What an acknowledgement or the end of a dump says: true, or false and a text. */
static bool outcome(struct migrator *m, const struct nlmsghdr *end)
{
	const int *error = NLMSG_DATA(end);
	size_t skip = end->nlmsg_type == NLMSG_DONE ? sizeof(*error) : sizeof(struct nlmsgerr);
	const struct nlattr *text = NULL;

	if (!*error)
		return true;
	if (end->nlmsg_flags & NLM_F_ACK_TLVS)
		text = find((const char *)error + skip, NLMSG_PAYLOAD(end, skip), NLMSGERR_ATTR_MSG);
	snprintf(m->text, sizeof(m->text), "%s",
		 text ? (const char *)text + NLA_HDRLEN : strerror(-*error));
	return false;
}

/*
 * Sends the request in the buffer, with NLM_F_ACK or NLM_F_DUMP. True, and the attributes of the last
 * reply that has any; or false, and a text.
 */
static bool request(struct migrator *m, uint16_t flags, const void **attrs, size_t *len)
{
	struct nlmsghdr *message = (void *)m->buffer;

	message->nlmsg_flags = NLM_F_REQUEST | flags;
	message->nlmsg_seq = ++m->seq;
	*len = 0;
	if (send(m->fd, m->buffer, message->nlmsg_len, 0) < 0)
		die("netlink: send: %m");
	for (;;) {
		/* The reply stays where it is while its end comes. */
		unsigned char *into = *len ? m->buffer + sizeof(m->buffer) / 2 : m->buffer;
		ssize_t got = recv(m->fd, into, sizeof(m->buffer) / 2, 0);
		const struct nlmsghdr *answer = (void *)into;

		if (got < (ssize_t)sizeof(*answer))
			die("netlink: recv: %m");
		for (; NLMSG_OK(answer, got); answer = NLMSG_NEXT(answer, got)) {
			if (answer->nlmsg_seq != m->seq)
				continue;
			if (answer->nlmsg_type == NLMSG_ERROR || answer->nlmsg_type == NLMSG_DONE)
				return outcome(m, answer) && *len;
			*attrs = (const char *)NLMSG_DATA(answer) + GENL_HDRLEN;
			*len = NLMSG_PAYLOAD(answer, GENL_HDRLEN);
		}
	}
}

static struct nlmsghdr *begin(struct migrator *m, uint16_t type, uint8_t command, uint8_t version)
{
	struct nlmsghdr *message = (void *)m->buffer;
	struct genlmsghdr *head = NLMSG_DATA(message);

	memset(message, 0, NLMSG_HDRLEN + GENL_HDRLEN);
	message->nlmsg_type = type;
	message->nlmsg_len = NLMSG_HDRLEN + GENL_HDRLEN;
	head->cmd = command;
	head->version = version;
	return message;
}

struct migrator *migrator_open(void)
{
	struct migrator *m = calloc(1, sizeof(*m));
	const void *attrs;
	size_t len;
	int one = 1;

	if (!m)
		die("malloc: %m");
	m->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
	if (m->fd < 0 || setsockopt(m->fd, SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof(one)) ||
	    setsockopt(m->fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one)))
		die("netlink: %m");
	set_patience(m->fd);
	put(begin(m, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 1), CTRL_ATTR_FAMILY_NAME,
	    NLB_MIGRATOR_FAMILY_NAME, sizeof(NLB_MIGRATOR_FAMILY_NAME));
	if (!request(m, NLM_F_ACK, &attrs, &len))
		die("no family %s: %s", NLB_MIGRATOR_FAMILY_NAME, m->text);
	m->family = (uint16_t)number(attrs, len, CTRL_ATTR_FAMILY_ID);
	return m;
}

void migrator_close(struct migrator *m)
{
	close(m->fd);
	free(m);
}

bool migrate(struct migrator *m, int fd, struct in_addr peer, uint32_t timeout_ms,
	     struct migration *result, const char **why)
{
	struct nlmsghdr *message =
		begin(m, m->family, NLB_MIGRATOR_CMD_MIGRATE, NLB_MIGRATOR_FAMILY_VERSION);
	uint32_t number_of_fd = (uint32_t)fd;
	const void *attrs;
	size_t len;

	put(message, NLB_MIGRATOR_A_MIGRATION_FD, &number_of_fd, sizeof(number_of_fd));
	put(message, NLB_MIGRATOR_A_MIGRATION_PEER_ADDR, &peer, sizeof(peer));
	put(message, NLB_MIGRATOR_A_MIGRATION_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
	if (!request(m, NLM_F_DUMP, &attrs, &len)) {
		*why = m->text;
		return false;
	}
	result->export_ns = number(attrs, len, NLB_MIGRATOR_A_MIGRATION_EXPORT_NS);
	result->inject_ns = number(attrs, len, NLB_MIGRATOR_A_MIGRATION_INJECT_NS);
	result->freeze_ns = number(attrs, len, NLB_MIGRATOR_A_MIGRATION_FREEZE_NS);
	result->total_ns = number(attrs, len, NLB_MIGRATOR_A_MIGRATION_TOTAL_NS);
	result->unread = number(attrs, len, NLB_MIGRATOR_A_MIGRATION_UNREAD_BYTES);
	return true;
}

static int accepted(const struct scene *scene)
{
	int fd = accept(scene->target, NULL, NULL);

	if (fd < 0)
		die("accept at the target: %m");
	return fd;
}

/* migrate CLIENT-NS ORIGIN-NS TARGET-NS VIP PEER SENT UNREAD COUNT */
int cmd_migrate(int argc, char **argv)
{
	struct scene scene;
	struct migrator *m;
	struct in_addr peer;
	uint64_t *exports, *injects, *both, *freezes, *totals, *files;
	size_t i, count;

	if (argc != 9)
		die("usage: migrate CLIENT-NS ORIGIN-NS TARGET-NS VIP PEER SENT UNREAD COUNT");
	count = strtoul(argv[8], NULL, 10);
	peer = address(argv[5], 0).sin_addr;
	scene_open(&scene, argv[1], argv[2], argv[3], argv[4], strtoul(argv[6], NULL, 10),
		   strtoul(argv[7], NULL, 10));
	exports = calloc(6 * count, sizeof(*exports));
	if (!exports)
		die("malloc: %m");
	injects = exports + count;
	both = injects + count;
	freezes = both + count;
	totals = freezes + count;
	files = totals + count;
	m = migrator_open();

	for (i = 0; i < count; i++) {
		struct connection c = scene_connect(&scene);
		struct migration result;
		const char *why;
		uint64_t begin;
		int app;

		if (!migrate(m, c.server, peer, 5000, &result, &why))
			die("migration %zu: %s", i, why);
		/* What the programs do with any connection: one closes, one accepts. */
		begin = now_ns();
		close(c.server);
		app = accepted(&scene);
		files[i] = now_ns() - begin;
		if (result.unread != scene.unread)
			die("%llu bytes moved instead of %zu", (unsigned long long)result.unread,
			    scene.unread);
		scene_verify(&scene, c.client, app);
		exports[i] = result.export_ns;
		injects[i] = result.inject_ns;
		both[i] = result.export_ns + result.inject_ns;
		freezes[i] = result.freeze_ns;
		totals[i] = result.total_ns;
	}
	printf("{\"what\":\"migration\",\"unread\":%zu,\"count\":%zu,", scene.unread, count);
	print_spread("export", exports, count);
	putchar(',');
	print_spread("inject", injects, count);
	putchar(',');
	print_spread("both", both, count);
	putchar(',');
	print_spread("freeze", freezes, count);
	putchar(',');
	print_spread("total", totals, count);
	putchar(',');
	print_spread("files", files, count);
	printf("}\n");
	migrator_close(m);
	scene_close(&scene);
	free(exports);
	return 0;
}

/* Many at the same time. */

struct mover {
	pthread_t thread;
	pthread_barrier_t *start;
	struct migrator *migrator;
	struct in_addr peer;
	const struct connection *connections;
	size_t count;
};

static void *move_all(void *arg)
{
	struct mover *mover = arg;
	size_t i;

	pthread_barrier_wait(mover->start);
	for (i = 0; i < mover->count; i++) {
		struct migration result;
		const char *why;

		if (!migrate(mover->migrator, mover->connections[i].server, mover->peer, 30000,
			     &result, &why))
			die("a migration failed: %s", why);
	}
	return NULL;
}

/* Kernel memory in use, in bytes. */
static uint64_t memory(void)
{
	FILE *file = fopen("/proc/meminfo", "r");
	uint64_t sum = 0;
	char line[128];

	if (!file)
		die("/proc/meminfo: %m");
	while (fgets(line, sizeof(line), file)) {
		char name[64];
		unsigned long long kib;

		if (sscanf(line, "%63[^:]: %llu kB", name, &kib) == 2 &&
		    (!strcmp(name, "Slab") || !strcmp(name, "VmallocUsed") ||
		     !strcmp(name, "Percpu")))
			sum += kib * 1024;
	}
	fclose(file);
	return sum;
}

/*
 * rate CLIENT-NS ORIGIN-NS TARGET-NS VIP PEER SENT UNREAD COUNT THREADS [WAIT]
 *
 * Sets up COUNT connections, moves all of them with THREADS callers, checks
 * each, and says how long the moves took. With WAIT, how much more kernel memory
 * is in use that many seconds after the start than before.
 */
int cmd_rate(int argc, char **argv)
{
	struct rlimit files = { 65536, 65536 };
	struct scene scene;
	struct in_addr peer;
	struct connection *connections;
	struct mover *movers;
	pthread_barrier_t start;
	pthread_attr_t small;
	uint64_t begin, end, before, grown = 0;
	size_t i, count, threads, first = 0;
	unsigned int wait;

	if (argc != 10 && argc != 11)
		die("usage: rate CLIENT-NS ORIGIN-NS TARGET-NS VIP PEER SENT UNREAD COUNT THREADS [WAIT]");
	count = strtoul(argv[8], NULL, 10);
	threads = strtoul(argv[9], NULL, 10);
	wait = argc == 11 ? (unsigned int)strtoul(argv[10], NULL, 10) : 0;
	peer = address(argv[5], 0).sin_addr;
	if (setrlimit(RLIMIT_NOFILE, &files))
		die("setrlimit: %m");
	scene_open(&scene, argv[1], argv[2], argv[3], argv[4], strtoul(argv[6], NULL, 10),
		   strtoul(argv[7], NULL, 10));
	connections = calloc(count, sizeof(*connections));
	movers = calloc(threads, sizeof(*movers));
	if (!connections || !movers || !threads)
		die("malloc: %m");
	for (i = 0; i < count; i++)
		connections[i] = scene_connect(&scene);

	pthread_barrier_init(&start, NULL, (unsigned int)threads + 1);
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 65536);
	for (i = 0; i < threads; i++) {
		size_t next = count * (i + 1) / threads;

		movers[i] = (struct mover){
			.start = &start,
			.migrator = migrator_open(),
			.peer = peer,
			.connections = connections + first,
			.count = next - first,
		};
		first = next;
		if (pthread_create(&movers[i].thread, &small, move_all, &movers[i]))
			die("cannot create a thread");
	}
	before = memory();
	pthread_barrier_wait(&start);
	begin = now_ns();
	if (wait) {
		uint64_t now;

		sleep(wait);
		now = memory();
		grown = now > before ? now - before : 0;
	}
	for (i = 0; i < threads; i++)
		pthread_join(movers[i].thread, NULL);
	end = now_ns();

	for (i = 0; i < count; i++) {
		struct sockaddr_in from;
		socklen_t len = sizeof(from);
		int app = accept(scene.target, (struct sockaddr *)&from, &len);
		size_t k;

		if (app < 0)
			die("accept at the target: %m");
		for (k = 0; k < count; k++)
			if (connections[k].peer.sin_port == from.sin_port)
				break;
		if (k == count)
			die("a connection of nobody was accepted");
		scene_verify(&scene, connections[k].client, app);
		close(connections[k].server);
	}
	printf("{\"what\":\"rate\",\"count\":%zu,\"threads\":%zu,\"ns\":%llu", count, threads,
	       (unsigned long long)(end - begin));
	if (wait)
		printf(",\"bytes_in_flight\":%llu", (unsigned long long)(grown / count));
	printf("}\n");
	for (i = 0; i < threads; i++)
		migrator_close(movers[i].migrator);
	scene_close(&scene);
	free(connections);
	free(movers);
	return 0;
}
