/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Writes the first bytes of the segment of ftok(PATH, 0) to stdout. */
#include "peer.h"

#include <sys/ipc.h>
#include <sys/shm.h>

int main(int argc, char **argv)
{
	key_t key;
	int id;
	void *memory;
	size_t count;

	if (argc != 3)
		usage("sysv_reader PATH BYTES");
	count = number(argv[2]);
	key = ftok(argv[1], 0);
	if (key == -1)
		fail("ftok");
	id = shmget(key, count, 0);
	if (id < 0)
		fail("shmget");
	memory = shmat(id, NULL, SHM_RDONLY);
	if (memory == (void *)-1)
		fail("shmat");
	if (fwrite(memory, 1, count, stdout) != count || fflush(stdout))
		fail("fwrite");
	if (shmdt(memory) < 0)
		fail("shmdt");
	return 0;
}
