// SPDX-License-Identifier: GPL-2.0
/*
 * Clients: HTTP/1.1 requests on kept-alive connections, the time of each, and
 * what the client's TCP had to do for it.
 */

#define _GNU_SOURCE
#include "bench.h"

#include <linux/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct client {
	pthread_t thread;
	struct sockaddr_in vip;
	const char *path;
	size_t connections, requests; /* requests on each connection */
	uint64_t *first, *later;
	uint64_t timeouts, retransmissions;
};

/* One request and its whole answer. */
static void get(int fd, const char *path)
{
	char request[256], answer[16384];
	size_t have = 0, want = 0;
	int len = snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: bench\r\n\r\n", path);

	if (send(fd, request, (size_t)len, MSG_NOSIGNAL) != len)
		die("send: %m");
	while (!want || have < want) {
		ssize_t n = recv(fd, answer + have, sizeof(answer) - 1 - have, 0);
		char *end, *length;

		if (n < 0)
			die("recv: %m");
		if (!n)
			die("the answer ends after %zu bytes", have);
		have += (size_t)n;
		answer[have] = 0;
		end = strstr(answer, "\r\n\r\n");
		if (want || !end)
			continue;
		length = strcasestr(answer, "\r\nContent-Length:");
		if (strncmp(answer, "HTTP/1.1 200 ", 13) || !length || length > end)
			die("unexpected answer: %.60s", answer);
		want = (size_t)(end + 4 - answer) + strtoul(length + 17, NULL, 10);
		if (want >= sizeof(answer))
			die("the answer is too long");
	}
	if (have > want)
		die("more bytes than were asked for");
}

static void *run(void *arg)
{
	struct client *client = arg;
	size_t i, k;

	for (i = 0; i < client->connections; i++) {
		struct tcp_info info;
		socklen_t len = sizeof(info);
		int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

		if (fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)))
			die("socket: %m");
		set_patience(fd);
		if (connect(fd, (struct sockaddr *)&client->vip, sizeof(client->vip)))
			die("connect: %m");
		for (k = 0; k < client->requests; k++) {
			uint64_t begin = now_ns(), took;

			get(fd, client->path);
			took = now_ns() - begin;
			if (k)
				client->later[i * (client->requests - 1) + k - 1] = took;
			else
				client->first[i] = took;
		}
		if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len))
			die("TCP_INFO: %m");
		client->timeouts += info.tcpi_total_rto;
		client->retransmissions += info.tcpi_total_retrans;
		close(fd);
	}
	return NULL;
}

/* load NAME VIP PATH CONNECTIONS REQUESTS CLIENTS */
int cmd_load(int argc, char **argv)
{
	struct client *clients;
	size_t connections, requests, count, i, begun = 0;
	uint64_t *first, *later, timeouts = 0, retransmissions = 0, begin, end;

	if (argc != 7)
		die("usage: load NAME VIP PATH CONNECTIONS REQUESTS CLIENTS");
	connections = strtoul(argv[4], NULL, 10);
	requests = strtoul(argv[5], NULL, 10);
	count = strtoul(argv[6], NULL, 10);
	if (!count || requests < 2 || connections < count)
		die("at least one client, two requests, and a connection for each client");
	clients = calloc(count, sizeof(*clients));
	first = calloc(connections, sizeof(*first));
	later = calloc(connections * (requests - 1), sizeof(*later));
	if (!clients || !first || !later)
		die("malloc: %m");

	begin = now_ns();
	for (i = 0; i < count; i++) {
		size_t next = connections * (i + 1) / count;

		clients[i] = (struct client){
			.vip = address(argv[2], 80),
			.path = argv[3],
			.connections = next - begun,
			.requests = requests,
			.first = first + begun,
			.later = later + begun * (requests - 1),
		};
		begun = next;
		if (pthread_create(&clients[i].thread, NULL, run, &clients[i]))
			die("cannot create a thread");
	}
	for (i = 0; i < count; i++) {
		pthread_join(clients[i].thread, NULL);
		timeouts += clients[i].timeouts;
		retransmissions += clients[i].retransmissions;
	}
	end = now_ns();
	printf("{\"what\":\"%s\",\"connections\":%zu,\"clients\":%zu,\"ns\":%llu,", argv[1],
	       connections, count, (unsigned long long)(end - begin));
	printf("\"timeouts\":%llu,\"retransmissions\":%llu,", (unsigned long long)timeouts,
	       (unsigned long long)retransmissions);
	print_spread("first", first, connections);
	putchar(',');
	print_spread("later", later, connections * (requests - 1));
	printf("}\n");
	free(clients);
	free(first);
	free(later);
	return 0;
}
