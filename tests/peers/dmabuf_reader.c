/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Listens, and prints the size and the text of each dma-buf that comes. */
#include "rights.h"
#include "sync.h"

#include <sys/mman.h>

int main(int argc, char **argv)
{
	int fds[MAX_FDS];
	int count, i, socket;

	if (argc != 2)
		usage("dmabuf_reader SOCKET");
	socket = accept_at(argv[1]);
	count = recv_fds(socket, fds);
	for (i = 0; i < count; i++) {
		off_t size = lseek(fds[i], 0, SEEK_END);
		char *memory;

		if (size < 0)
			fail("lseek");
		memory = mmap(NULL, size, PROT_READ, MAP_SHARED, fds[i], 0);
		if (memory == MAP_FAILED)
			fail("mmap");
		sync_access(fds[i], DMA_BUF_SYNC_START | DMA_BUF_SYNC_READ);
		printf("%lld %.*s\n", (long long)size,
		       (int)strnlen(memory, size), memory);
		sync_access(fds[i], DMA_BUF_SYNC_END | DMA_BUF_SYNC_READ);
		munmap(memory, size);
		close(fds[i]);
	}
	close(socket);
	return 0;
}
