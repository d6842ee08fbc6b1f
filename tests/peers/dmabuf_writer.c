/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Puts a text into a dma-buf of the system heap, and sends it. */
#include "rights.h"
#include "sync.h"

#include <fcntl.h>
#include <linux/dma-heap.h>
#include <sys/mman.h>

int main(int argc, char **argv)
{
	struct dma_heap_allocation_data data = {
		.fd_flags = O_RDWR | O_CLOEXEC,
	};
	char *memory;
	int heap, fd, socket;

	if (argc != 4)
		usage("dmabuf_writer SOCKET SIZE TEXT");
	data.len = number(argv[2]);
	if (strlen(argv[3]) >= data.len)
		usage("dmabuf_writer SOCKET SIZE TEXT");
	heap = open("/dev/dma_heap/system", O_RDONLY | O_CLOEXEC);
	if (heap < 0)
		fail("/dev/dma_heap/system");
	if (ioctl(heap, DMA_HEAP_IOCTL_ALLOC, &data) < 0)
		fail("DMA_HEAP_IOCTL_ALLOC");
	fd = data.fd;
	memory = mmap(NULL, data.len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		fail("mmap");
	sync_access(fd, DMA_BUF_SYNC_START | DMA_BUF_SYNC_WRITE);
	strcpy(memory, argv[3]);
	sync_access(fd, DMA_BUF_SYNC_END | DMA_BUF_SYNC_WRITE);
	munmap(memory, data.len);

	socket = connect_to(argv[1]);
	send_fds(socket, &fd, 1);
	close(socket);
	return 0;
}
