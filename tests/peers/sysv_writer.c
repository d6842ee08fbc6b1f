/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Fills a System V segment, found by ftok(PATH, 0), with one character. */
#include "peer.h"

#include <sys/ipc.h>
#include <sys/shm.h>

int main(int argc, char **argv)
{
	key_t key;
	int id;
	void *memory;
	size_t size;

	if (argc != 4)
		usage("sysv_writer PATH SIZE CHARACTER");
	size = number(argv[2]);
	key = ftok(argv[1], 0);
	if (key == -1)
		fail("ftok");
	id = shmget(key, size, IPC_CREAT | 0600);
	if (id < 0)
		fail("shmget");
	memory = shmat(id, NULL, 0);
	if (memory == (void *)-1)
		fail("shmat");
	memset(memory, argv[3][0], size);
	if (shmdt(memory) < 0)
		fail("shmdt");
	return 0;
}
