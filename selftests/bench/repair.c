// SPDX-License-Identifier: GPL-2.0
/*
 * The peer: moves a connection with TCP_REPAIR, as CRIU and passt do, with no
 * system call and no copy that is not needed.
 *
 * "bare" is dump, close, restore.
 *
 * "lossless" does what a migration must do to lose nothing: the connection is
 * frozen first (TCP_REPAIR alone goes on acknowledging what arrives after the
 * dump), its state is one message with a CRC, and a window probe at the end makes
 * up for the acknowledgement that the origin may have owed and for ts_recent, which
 * cannot be restored. Nothing is cheaper for the freeze than a BPF program on the
 * socket that drops every segment; it was loaded before.
 *
 * "whole" takes along what the program may have set on the socket, too: then the
 * connection is the same afterwards, as far as TCP_REPAIR can make it.
 */

#define _GNU_SOURCE
#include "bench.h"

#include <errno.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <nmmintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Kinds of TCP options, for TCP_REPAIR_OPTIONS. */
enum { OPT_MSS = 2, OPT_WSCALE = 3, OPT_SACK_PERM = 4, OPT_TIMESTAMP = 8 };

#define MESSAGE_MAX (1 << 20)

/* Options of the socket that go along, the same as nlb's; all are numbers. */
static const struct {
	int level, option;
} socket_options[] = {
	{ IPPROTO_TCP, TCP_NODELAY },	    { SOL_SOCKET, SO_KEEPALIVE },
	{ IPPROTO_TCP, TCP_KEEPCNT },	    { IPPROTO_TCP, TCP_KEEPIDLE },
	{ IPPROTO_TCP, TCP_KEEPINTVL },	    { IPPROTO_IP, IP_TOS },
	{ IPPROTO_TCP, TCP_USER_TIMEOUT },  { IPPROTO_TCP, TCP_NOTSENT_LOWAT },
	{ SOL_SOCKET, SO_MAX_PACING_RATE },
};

#define OPTIONS (sizeof(socket_options) / sizeof(socket_options[0]))

/* What they are on a new socket. */
static int defaults[OPTIONS];

/* What TCP_REPAIR can tell about a connection; the bytes to be sent follow, then the unread ones. */
struct message {
	uint32_t len, crc; /* of all that follows */
	struct sockaddr_in local, peer;
	struct tcp_repair_window window;
	uint32_t mss, timestamp, send_seq, recv_seq, send_len, unsent, recv_len;
	uint8_t options, snd_wscale, rcv_wscale, zero;
	int socket_options[OPTIONS];
	unsigned char data[];
};

static uint32_t crc32c(const void *data, size_t len)
{
	const unsigned char *at = data;
	uint64_t crc = 0xffffffff, word;

#pragma GCC unroll 8
	for (; len >= 8; at += 8, len -= 8) {
		memcpy(&word, at, sizeof(word));
		crc = _mm_crc32_u64(crc, word);
	}
	for (; len; at++, len--)
		crc = _mm_crc32_u8((uint32_t)crc, *at);
	return ~(uint32_t)crc;
}

/* A program that drops every packet; -1 if this kernel takes none of the kind. */
static int drop_all(void)
{
	struct bpf_insn code[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_SOCKET_FILTER,
		.insns = (uintptr_t)code,
		.insn_cnt = sizeof(code) / sizeof(code[0]),
		.license = (uintptr_t) "GPL",
	};
	int fd = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr));

	if (fd < 0 && errno != ENOSYS)
		die("BPF_PROG_LOAD: %m");
	return fd;
}

/* Has the socket drop every packet. */
static void freeze(int fd, int filter)
{
	struct sock_filter code = { .code = BPF_RET | BPF_K };
	struct sock_fprog classic = { .len = 1, .filter = &code };

	if (filter >= 0 ?
		    setsockopt(fd, SOL_SOCKET, SO_ATTACH_BPF, &filter, sizeof(filter)) :
		    setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &classic, sizeof(classic)))
		die("cannot attach a filter: %m");
}

static void set(int fd, int option, const void *value, socklen_t len)
{
	if (setsockopt(fd, IPPROTO_TCP, option, value, len))
		die("setsockopt(%d): %m", option);
}

static void set_int(int fd, int option, int value)
{
	set(fd, option, &value, sizeof(value));
}

static void get(int fd, int option, void *value, socklen_t len)
{
	if (getsockopt(fd, IPPROTO_TCP, option, value, &len))
		die("getsockopt(%d): %m", option);
}

/* The bytes of the queue chosen by TCP_REPAIR_QUEUE. */
static uint32_t peek(int fd, unsigned char *data, size_t room)
{
	ssize_t n = recv(fd, data, room, MSG_PEEK | MSG_DONTWAIT);

	if (n < 0 && errno != EAGAIN)
		die("recv: %m");
	return n < 0 ? 0 : (uint32_t)n;
}

static void get_options(int fd, int values[OPTIONS])
{
	size_t i;

	for (i = 0; i < OPTIONS; i++) {
		socklen_t len = sizeof(values[i]);

		if (getsockopt(fd, socket_options[i].level, socket_options[i].option, &values[i],
			       &len))
			die("getsockopt(%d): %m", socket_options[i].option);
	}
}

/* Those that are not what every socket begins with. */
static void set_options(int fd, const int values[OPTIONS])
{
	size_t i;

	for (i = 0; i < OPTIONS; i++)
		if (values[i] != defaults[i] &&
		    setsockopt(fd, socket_options[i].level, socket_options[i].option, &values[i],
			       sizeof(values[i])))
			die("setsockopt(%d): %m", socket_options[i].option);
}

enum mode { BARE, LOSSLESS, WHOLE };

/* filter: the program that freezes the connection, unless it is BARE. */
static void dump(int fd, struct message *m, enum mode mode, int filter)
{
	struct tcp_info info;
	size_t room = MESSAGE_MAX - sizeof(*m);

	if (mode != BARE)
		freeze(fd, filter);
	set_int(fd, TCP_REPAIR, TCP_REPAIR_ON);
	get(fd, TCP_INFO, &info, sizeof(info));
	if (info.tcpi_state != 1)
		die("not established");
	m->options = info.tcpi_options;
	m->snd_wscale = info.tcpi_snd_wscale;
	m->rcv_wscale = info.tcpi_rcv_wscale;
	m->zero = 0;
	get(fd, TCP_REPAIR_WINDOW, &m->window, sizeof(m->window));
	/* In repair mode the MSS that the client has announced. */
	get(fd, TCP_MAXSEG, &m->mss, sizeof(m->mss));
	m->timestamp = 0;
	if (m->options & TCPI_OPT_TIMESTAMPS)
		get(fd, TCP_TIMESTAMP, &m->timestamp, sizeof(m->timestamp));

	set_int(fd, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE);
	get(fd, TCP_QUEUE_SEQ, &m->send_seq, sizeof(m->send_seq));
	m->send_len = peek(fd, m->data, room);
	m->unsent = 0;
	if (m->send_len && ioctl(fd, SIOCOUTQNSD, &m->unsent))
		die("SIOCOUTQNSD: %m");

	set_int(fd, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE);
	get(fd, TCP_QUEUE_SEQ, &m->recv_seq, sizeof(m->recv_seq));
	m->recv_len = peek(fd, m->data + m->send_len, room - m->send_len);
	if (mode == WHOLE)
		get_options(fd, m->socket_options);
	if (mode != BARE) {
		m->len = (uint32_t)(sizeof(*m) - 8 + m->send_len + m->recv_len);
		m->crc = crc32c((char *)m + 8, m->len);
	}
}

static void fill(int fd, const unsigned char *data, size_t len)
{
	while (len) {
		ssize_t n = send(fd, data, len, 0);

		if (n < 0)
			die("send: %m");
		data += n;
		len -= (size_t)n;
	}
}

static int restore(const struct message *m, enum mode mode)
{
	struct tcp_repair_opt options[4];
	uint32_t seq, sent = m->send_len - m->unsent;
	unsigned int count = 0;
	int off = mode != BARE ? TCP_REPAIR_OFF : TCP_REPAIR_OFF_NO_WP;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (mode != BARE && (m->len != sizeof(*m) - 8 + m->send_len + m->recv_len ||
		      m->crc != crc32c((const char *)m + 8, m->len)))
		die("the message is broken");
	if (fd < 0)
		die("socket: %m");
	set_int(fd, TCP_REPAIR, TCP_REPAIR_ON);
	set_int(fd, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE);
	seq = m->send_seq - m->send_len;
	set(fd, TCP_QUEUE_SEQ, &seq, sizeof(seq));
	set_int(fd, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE);
	seq = m->recv_seq - m->recv_len;
	set(fd, TCP_QUEUE_SEQ, &seq, sizeof(seq));
	if (bind(fd, (const struct sockaddr *)&m->local, sizeof(m->local)))
		die("bind: %m");
	if (connect(fd, (const struct sockaddr *)&m->peer, sizeof(m->peer)))
		die("connect: %m");

	options[count++] = (struct tcp_repair_opt){ OPT_MSS, m->mss };
	if (m->options & TCPI_OPT_WSCALE)
		options[count++] = (struct tcp_repair_opt){
			OPT_WSCALE,
			m->snd_wscale | (uint32_t)m->rcv_wscale << 16,
		};
	if (m->options & TCPI_OPT_SACK)
		options[count++] = (struct tcp_repair_opt){ OPT_SACK_PERM, 0 };
	if (m->options & TCPI_OPT_TIMESTAMPS)
		options[count++] = (struct tcp_repair_opt){ OPT_TIMESTAMP, 0 };
	set(fd, TCP_REPAIR_OPTIONS, options, (socklen_t)(count * sizeof(options[0])));
	if (m->options & TCPI_OPT_TIMESTAMPS)
		set(fd, TCP_TIMESTAMP, &m->timestamp, sizeof(m->timestamp));

	/* The receive queue is still the chosen one. */
	fill(fd, m->data + m->send_len, m->recv_len);
	if (m->send_len) {
		set_int(fd, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE);
		fill(fd, m->data, sent);
	}
	set(fd, TCP_REPAIR_WINDOW, &m->window, sizeof(m->window));
	if (mode == WHOLE)
		set_options(fd, m->socket_options);
	set_int(fd, TCP_REPAIR, off);
	fill(fd, m->data + sent, m->unsent);
	return fd;
}

static enum mode mode_of(const char *name)
{
	if (!strcmp(name, "bare"))
		return BARE;
	if (!strcmp(name, "lossless"))
		return LOSSLESS;
	if (!strcmp(name, "whole"))
		return WHOLE;
	die("no mode '%s'", name);
}

/* repair CLIENT-NS ORIGIN-NS VIP SENT UNREAD COUNT bare|lossless|whole */
int cmd_repair(int argc, char **argv)
{
	struct scene scene;
	struct message *m;
	uint64_t *dumps, *closes, *restores, *both;
	size_t i, count;
	enum mode mode;
	int filter, fresh;

	if (argc != 8)
		die("usage: repair CLIENT-NS ORIGIN-NS VIP SENT UNREAD COUNT bare|lossless|whole");
	mode = mode_of(argv[7]);
	filter = drop_all();
	count = strtoul(argv[6], NULL, 10);
	scene_open(&scene, argv[1], argv[2], NULL, argv[3], strtoul(argv[4], NULL, 10),
		   strtoul(argv[5], NULL, 10));
	dumps = calloc(4 * count, sizeof(*dumps));
	m = malloc(MESSAGE_MAX);
	if (!dumps || !m)
		die("malloc: %m");
	fresh = socket(AF_INET, SOCK_STREAM, 0);
	if (fresh < 0)
		die("socket: %m");
	get_options(fresh, defaults);
	close(fresh);
	/* No page is touched for the first time within a measurement. */
	memset(m, 1, MESSAGE_MAX);
	closes = dumps + count;
	restores = closes + count;
	both = restores + count;

	for (i = 0; i < count; i++) {
		struct connection c = scene_connect(&scene);
		uint64_t t0, t1, t2, t3;
		int app;

		/* Known since it was accepted. */
		m->local = scene.vip;
		m->peer = c.peer;
		t0 = now_ns();
		dump(c.server, m, mode, filter);
		t1 = now_ns();
		close(c.server);
		t2 = now_ns();
		app = restore(m, mode);
		t3 = now_ns();
		if (m->recv_len != scene.unread)
			die("%u bytes dumped instead of %zu", m->recv_len, scene.unread);
		scene_verify(&scene, c.client, app);
		dumps[i] = t1 - t0;
		closes[i] = t2 - t1;
		restores[i] = t3 - t2;
		both[i] = t3 - t0;
	}
	printf("{\"what\":\"tcp_repair_%s\",\"unread\":%zu,\"count\":%zu,", argv[7], scene.unread,
	       count);
	print_spread("dump", dumps, count);
	putchar(',');
	print_spread("close", closes, count);
	putchar(',');
	print_spread("restore", restores, count);
	putchar(',');
	print_spread("both", both, count);
	printf("}\n");
	scene_close(&scene);
	free(dumps);
	free(m);
	return 0;
}
