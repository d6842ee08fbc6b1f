/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Writes the first bytes of a POSIX shared memory object to stdout. */
#include "peer.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int fd;
	void *memory;
	size_t count;

	if (argc != 3)
		usage("posix_reader NAME BYTES");
	count = number(argv[2]);
	fd = shm_open(argv[1], O_RDONLY, 0);
	if (fd < 0)
		fail("shm_open");
	memory = mmap(NULL, count, PROT_READ, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		fail("mmap");
	close(fd);
	if (fwrite(memory, 1, count, stdout) != count || fflush(stdout))
		fail("fwrite");
	munmap(memory, count);
	return 0;
}
