// SPDX-License-Identifier: GPL-2.0
/*
 * TCP packets by a packet socket: new connections, packets of connections that
 * are there, batches of segments.
 */

#define _GNU_SOURCE
#include "bench.h"

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ether.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef PACKET_QDISC_BYPASS
#define PACKET_QDISC_BYPASS 20
#endif

/* The port of each client. */
#define CLIENT_PORT 1024
/* Payload of a segment, and segments in a batch. */
#define SEGMENT 1448
#define SEGMENTS 45

struct packet {
	struct virtio_net_hdr batch;
	struct ether_header link;
	struct iphdr ip;
	struct tcphdr tcp;
	unsigned char payload[SEGMENT * SEGMENTS];
} __attribute__((packed));

/* The sum of bytes that begin at an even place, in network byte order and not folded. */
static uint64_t sum(const void *from, size_t len)
{
	const unsigned char *bytes = from;
	uint64_t total = 0;

	for (size_t i = 0; i + 1 < len; i += 2)
		total += (uint64_t)bytes[i] << 8 | bytes[i + 1];
	return total;
}

static uint16_t fold(uint64_t total)
{
	while (total >> 16)
		total = (total & 0xffff) + (total >> 16);
	return (uint16_t)total;
}

/* Which packets: what is in them (more than a segment is for the device to cut), and whether they go to the clients. */
struct kind {
	const char *name;
	size_t payload;
	bool syn, answer;
};

static const struct kind kinds[] = {
	{ "syn", 0, true, false },
	{ "ack", 6, false, false }, /* the shortest frame, without its checksum, has 60 bytes */
	{ "batch", SEGMENT * SEGMENTS, false, false },
	{ "answer", 6, false, true },
};

static void fill(struct packet *packet, const struct kind *kind, const char *mac, const char *vip,
		 const char *port)
{
	size_t tcp_len = sizeof(packet->tcp) + kind->payload;
	struct ether_addr *to = ether_aton(mac);

	if (!to)
		die("%s is no link-layer address", mac);
	memset(packet, 0, sizeof(*packet));
	memcpy(packet->link.ether_dhost, to, sizeof(*to));
	packet->link.ether_type = htons(ETH_P_IP);
	packet->ip.version = 4;
	packet->ip.ihl = 5;
	packet->ip.tot_len = htons((uint16_t)(sizeof(packet->ip) + tcp_len));
	packet->ip.frag_off = htons(IP_DF);
	packet->ip.ttl = 64;
	packet->ip.protocol = IPPROTO_TCP;
	packet->ip.saddr = packet->ip.daddr = address(vip, 0).sin_addr.s_addr;
	packet->tcp.source = packet->tcp.dest = htons(CLIENT_PORT);
	*(kind->answer ? &packet->tcp.source : &packet->tcp.dest) = htons((uint16_t)atoi(port));
	packet->tcp.seq = htonl(1);
	packet->tcp.doff = 5;
	packet->tcp.window = htons(65535);
	packet->tcp.syn = kind->syn;
	packet->tcp.ack = !kind->syn;
	packet->tcp.ack_seq = kind->syn ? 0 : htonl(1);
	/* What is to be in one piece. */
	packet->batch.hdr_len = offsetof(struct packet, payload) - offsetof(struct packet, link);
	if (kind->payload <= SEGMENT)
		return;
	packet->batch.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	packet->batch.csum_start = sizeof(packet->link) + sizeof(packet->ip);
	packet->batch.csum_offset = offsetof(struct tcphdr, check);
	packet->batch.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
	packet->batch.gso_size = SEGMENT;
}

/*
 * send DEVICE MAC VIP PORT FIRST FLOWS COUNT syn|ack|batch|answer
 *
 * COUNT packets to the machine with this link-layer address, in turn from FLOWS
 * clients, whose addresses begin with FIRST, or answers to them. How long that
 * took.
 */
int cmd_send(int argc, char **argv)
{
	struct sockaddr_ll by = { .sll_family = AF_PACKET };
	const struct kind *kind = NULL;
	uint64_t begin, ip_sum, tcp_sum;
	uint32_t first, flows, count;
	static struct packet packet;
	int fd, one = 1;
	size_t len;

	for (size_t i = 0; argc == 9 && i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (!strcmp(argv[8], kinds[i].name))
			kind = &kinds[i];
	if (!kind)
		die("usage: send DEVICE MAC VIP PORT FIRST FLOWS COUNT syn|ack|batch|answer");
	first = ntohl(address(argv[5], 0).sin_addr.s_addr);
	flows = (uint32_t)strtoul(argv[6], NULL, 10);
	count = (uint32_t)strtoul(argv[7], NULL, 10);
	if (!flows)
		die("send: no flows");
	fill(&packet, kind, argv[2], argv[3], argv[4]);
	/* It receives nothing. */
	fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	by.sll_ifindex = (int)if_nametoindex(argv[1]);
	if (fd < 0 || !by.sll_ifindex || bind(fd, (void *)&by, sizeof(by)) ||
	    setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)) ||
	    setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof(one)))
		die("send: %s: %m", argv[1]);

	len = sizeof(packet.tcp) + kind->payload;
	ip_sum = sum(&packet.ip, sizeof(packet.ip)) - sum(&packet.ip.saddr, 4);
	tcp_sum = sum(&packet.ip.daddr, 4) + IPPROTO_TCP + len;
	/* What a device is to finish has the sum of the pseudo header alone. */
	if (!packet.batch.flags)
		tcp_sum += sum(&packet.tcp, len);
	len += offsetof(struct packet, tcp);
	/* What the kernel has put off until now is no part of it. */
	usleep(100000);
	begin = now_ns();
	for (uint32_t i = 0, flow = 0; i < count; i++) {
		uint32_t client = first + flow, halves = (client >> 16) + (client & 0xffff);
		uint16_t check = fold(tcp_sum + halves);

		*(kind->answer ? &packet.ip.daddr : &packet.ip.saddr) = htonl(client);
		packet.ip.check = htons((uint16_t)~fold(ip_sum + halves));
		packet.tcp.check = htons(packet.batch.flags ? check : (uint16_t)~check);
		if (send(fd, &packet, len, 0) != (ssize_t)len)
			die("send: %m");
		if (++flow == flows)
			flow = 0;
	}
	printf("{\"what\":\"send\",\"kind\":\"%s\",\"count\":%u,\"ns\":%llu}\n", kind->name, count,
	       (unsigned long long)(now_ns() - begin));
	return 0;
}
