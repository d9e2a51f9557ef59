/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * handover VIP HOST: a web server on the VIP that gives requests below /app/ away to HOST and answers the
 * others, and what HOST does not take, itself. The part that matters is serve().
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <nlb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void serve(int fd, const char *host)
{
	static const char sorry[] = "HTTP/1.0 503 Service Unavailable\r\n\r\nnot here\n";
	struct nlb_options options = NLB_OPTIONS_INIT;
	char head[4096];
	ssize_t n = recv(fd, head, sizeof(head), MSG_PEEK);
	int ret = 0;

	options.timeout_ms = 5000;
	if (n >= 9 && !memcmp(head, "GET /app/", 9)) {
		ret = nlb_migrate(fd, host, &options);
		if (ret)
			fprintf(stderr, "%s: %d, reason %u: %s\n", host, ret, nlb_error_reason(), nlb_error_text());
		else
			return;
	}
	/* It is still ours, unless it was lost: then this fails, and nothing is left to do. */
	if (recv(fd, head, sizeof(head), 0) > 0)
		send(fd, sorry, sizeof(sorry) - 1, MSG_NOSIGNAL);
}

int main(int argc, char **argv)
{
	struct sockaddr_in vip = { .sin_family = AF_INET, .sin_port = htons(80) };
	int fd, on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);

	if (argc != 3 || inet_pton(AF_INET, argv[1], &vip.sin_addr) != 1)
		errx(2, "usage: handover VIP HOST");
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(listener, (struct sockaddr *)&vip, sizeof(vip)) || listen(listener, 128))
		err(1, "%s", argv[1]);
	while ((fd = accept(listener, NULL, NULL)) >= 0 || errno == ECONNABORTED) {
		serve(fd, argv[2]);
		close(fd);
	}
	err(1, "accept");
}
