// SPDX-License-Identifier: GPL-2.0
/*
 * Namespaces, connections, numbers.
 */

#define _GNU_SOURCE
#include "bench.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* How long anything may take, in seconds. */
#define PATIENCE 20

void die(const char *format, ...)
{
	int error = errno;
	va_list args;

	fflush(stdout);
	fputs("nlb-bench: ", stderr);
	va_start(args, format);
	errno = error;
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

int netns_open(const char *name)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/run/netns/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die("namespace %s: %m", name);
	return fd;
}

void netns_enter(int fd)
{
	if (setns(fd, CLONE_NEWNET))
		die("setns: %m");
}

struct sockaddr_in address(const char *ip, uint16_t port)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons(port) };

	if (inet_pton(AF_INET, ip, &addr.sin_addr) != 1)
		die("'%s' is no IPv4 address", ip);
	return addr;
}

int listen_on(struct sockaddr_in addr, int backlog)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(fd, backlog))
		die("cannot listen: %m");
	set_patience(fd);
	return fd;
}

void set_patience(int fd)
{
	struct timeval limit = { .tv_sec = PATIENCE };

	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)))
		die("SO_RCVTIMEO or SO_SNDTIMEO: %m");
}

static unsigned char pattern(size_t i)
{
	return (unsigned char)(i * 31 + 7);
}

void scene_open(struct scene *scene, const char *client, const char *origin,
		const char *target, const char *vip, size_t sent, size_t unread)
{
	memset(scene, 0, sizeof(*scene));
	if (unread > sent)
		die("more bytes unread than sent");
	scene->sent = sent;
	scene->unread = unread;
	scene->vip = address(vip, 80);
	scene->client_ns = netns_open(client);
	scene->origin_ns = netns_open(origin);
	scene->target_ns = target ? netns_open(target) : -1;
	scene->target = -1;
	if (target) {
		netns_enter(scene->target_ns);
		scene->target = listen_on(scene->vip, 4096);
	}
	netns_enter(scene->origin_ns);
	scene->origin = listen_on(scene->vip, 4096);
}

void scene_close(struct scene *scene)
{
	close(scene->origin);
	close(scene->client_ns);
	close(scene->origin_ns);
	if (scene->target_ns >= 0) {
		close(scene->target);
		close(scene->target_ns);
	}
}

static void send_all(int fd, const unsigned char *data, size_t len)
{
	while (len) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

		if (n < 0)
			die("send: %m");
		data += n;
		len -= (size_t)n;
	}
}

static void recv_all(int fd, unsigned char *data, size_t len)
{
	while (len) {
		ssize_t n = recv(fd, data, len, 0);

		if (n < 0)
			die("recv: %m");
		if (!n)
			die("recv: end of stream, %zu bytes missing", len);
		data += n;
		len -= (size_t)n;
	}
}

/* Waits until the number that `request` asks for is `want`. */
static void wait_until(int fd, unsigned long request, size_t want)
{
	int there = 0, tries;

	for (tries = 0; tries < PATIENCE * 1000; tries++) {
		if (ioctl(fd, request, &there))
			die("ioctl: %m");
		if ((size_t)there == want)
			return;
		usleep(1000);
	}
	die("%d bytes wait in the socket, and not %zu", there, want);
}

struct connection scene_connect(const struct scene *scene)
{
	struct connection c;
	socklen_t len = sizeof(c.peer);
	unsigned char *data = malloc(scene->sent + 1);
	size_t i;

	if (!data)
		die("malloc: %m");
	netns_enter(scene->client_ns);
	c.client = socket(AF_INET, SOCK_STREAM, 0);
	if (c.client < 0)
		die("socket: %m");
	set_patience(c.client);
	if (connect(c.client, (struct sockaddr *)&scene->vip, sizeof(scene->vip)))
		die("connect: %m");
	netns_enter(scene->origin_ns);
	c.server = accept(scene->origin, (struct sockaddr *)&c.peer, &len);
	if (c.server < 0)
		die("accept: %m");
	for (i = 0; i < scene->sent; i++)
		data[i] = pattern(i);
	send_all(c.client, data, scene->sent);
	wait_until(c.server, FIONREAD, scene->sent);
	recv_all(c.server, data, scene->sent - scene->unread);
	free(data);
	/* Nothing is under way when the connection moves: TCP_REPAIR without a firewall would lose it. */
	wait_until(c.client, SIOCOUTQ, 0);
	return c;
}

void scene_verify(const struct scene *scene, int client, int app)
{
	unsigned char *data = malloc(scene->unread + 1);
	unsigned char reply[100], more[10];
	int one = 1;
	size_t i;

	if (!data)
		die("malloc: %m");
	set_patience(app);
	recv_all(app, data, scene->unread);
	for (i = 0; i < scene->unread; i++)
		if (data[i] != pattern(scene->sent - scene->unread + i))
			die("byte %zu of the unread ones is wrong", i);
	free(data);
	for (i = 0; i < sizeof(reply); i++)
		reply[i] = pattern(i);
	send_all(app, reply, sizeof(reply));
	recv_all(client, reply, sizeof(reply));
	for (i = 0; i < sizeof(reply); i++)
		if (reply[i] != pattern(i))
			die("byte %zu of the reply is wrong", i);
	send_all(client, reply, sizeof(more));
	recv_all(app, more, sizeof(more));
	if (memcmp(more, reply, sizeof(more)))
		die("the bytes after the move are wrong");
	close(client);
	if (recv(app, more, 1, 0) != 0)
		die("no end of stream: %m");
	/* TCP_REPAIR has taken it away; the next listener could not be bound until all is acknowledged. */
	if (setsockopt(app, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)))
		die("SO_REUSEADDR: %m");
	close(app);
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

uint64_t percentile(uint64_t *values, size_t count, unsigned int p)
{
	if (!count)
		die("no values");
	qsort(values, count, sizeof(*values), compare);
	return values[(count - 1) * p / 100];
}

void print_spread(const char *name, uint64_t *values, size_t count)
{
	printf("\"%s\":{", name);
	printf("\"p10\":%llu,", (unsigned long long)percentile(values, count, 10));
	printf("\"p50\":%llu,", (unsigned long long)percentile(values, count, 50));
	printf("\"p90\":%llu,", (unsigned long long)percentile(values, count, 90));
	printf("\"p99\":%llu}", (unsigned long long)percentile(values, count, 99));
}
