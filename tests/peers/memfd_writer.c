/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Puts a text into each of COUNT memfds, and sends them all at once. */
#define _GNU_SOURCE
#include "rights.h"

#include <sys/mman.h>

int main(int argc, char **argv)
{
	int fds[MAX_FDS];
	int count, i, socket;
	size_t size;

	if (argc != 5)
		usage("memfd_writer SOCKET COUNT SIZE TEXT");
	count = number(argv[2]);
	size = number(argv[3]);
	if (count < 1 || count > MAX_FDS || strlen(argv[4]) >= size)
		usage("memfd_writer SOCKET COUNT SIZE TEXT");
	for (i = 0; i < count; i++) {
		char *memory;

		fds[i] = memfd_create("peer", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		if (fds[i] < 0)
			fail("memfd_create");
		if (ftruncate(fds[i], size) < 0)
			fail("ftruncate");
		memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED,
			      fds[i], 0);
		if (memory == MAP_FAILED)
			fail("mmap");
		strcpy(memory, argv[4]);
		munmap(memory, size);
	}
	socket = connect_to(argv[1]);
	send_fds(socket, fds, count);
	close(socket);
	return 0;
}
