/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Listens, and prints the size and the text of each memory that comes. */
#include "rights.h"

#include <sys/mman.h>
#include <sys/stat.h>

int main(int argc, char **argv)
{
	int fds[MAX_FDS];
	int count, i, socket;

	if (argc != 2)
		usage("memfd_reader SOCKET");
	socket = accept_at(argv[1]);
	count = recv_fds(socket, fds);
	for (i = 0; i < count; i++) {
		struct stat stat;
		char *memory;

		if (fstat(fds[i], &stat) < 0)
			fail("fstat");
		memory = mmap(NULL, stat.st_size, PROT_READ, MAP_SHARED,
			      fds[i], 0);
		if (memory == MAP_FAILED)
			fail("mmap");
		printf("%lld %.*s\n", (long long)stat.st_size,
		       (int)strnlen(memory, stat.st_size), memory);
		munmap(memory, stat.st_size);
		close(fds[i]);
	}
	close(socket);
	return 0;
}
