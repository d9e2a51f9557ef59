// SPDX-License-Identifier: GPL-2.0
/*
 * nlb-bench: what bench.sh and forward.sh measure with. Each command prints one JSON object.
 */

#include "bench.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* No command takes longer, in seconds. */
#define LIMIT 600

static void too_long(int number)
{
	static const char text[] = "nlb-bench: took too long\n";

	(void)number;
	if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		_exit(2);
	_exit(1);
}

/*
 * clock
 *
 * How long 100,000 instructions take, the median of many times. Where the clock
 * counts instructions, that is what it says.
 */
int cmd_clock(int argc, char **argv)
{
	uint64_t took[99];
	size_t i;

	(void)argv;
	if (argc != 1)
		die("usage: clock");
	for (i = 0; i < sizeof(took) / sizeof(took[0]); i++) {
		uint64_t loops = 50000, begin = now_ns();

		__asm__ volatile("1: dec %0; jnz 1b" : "+r"(loops) : : "cc");
		took[i] = now_ns() - begin;
	}
	printf("{\"what\":\"clock\",\"instructions\":100000,");
	print_spread("ns", took, i);
	printf("}\n");
	return 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(int argc, char **argv);
	} commands[] = {
		{ "clock", cmd_clock }, { "load", cmd_load },	  { "migrate", cmd_migrate },
		{ "rate", cmd_rate },	{ "repair", cmd_repair }, { "send", cmd_send },
	};

	signal(SIGALRM, too_long);
	alarm(LIMIT);
	for (size_t i = 0; argc > 1 && i < sizeof(commands) / sizeof(commands[0]); i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	die("usage: nlb-bench clock | load | migrate | rate | repair | send");
}
