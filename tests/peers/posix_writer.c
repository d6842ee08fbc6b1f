/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Fills a POSIX shared memory object with one character. */
#include "peer.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int fd;
	void *memory;
	size_t size;

	if (argc != 4)
		usage("posix_writer NAME SIZE CHARACTER");
	size = number(argv[2]);
	fd = shm_open(argv[1], O_CREAT | O_RDWR, 0600);
	if (fd < 0)
		fail("shm_open");
	if (ftruncate(fd, size) < 0)
		fail("ftruncate");
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		fail("mmap");
	close(fd);
	memset(memory, argv[3][0], size);
	munmap(memory, size);
	return 0;
}
