/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Says on which processor it runs. */
#include <stdio.h>
#include <sys/utsname.h>

int main(void)
{
	struct utsname name;

	if (uname(&name))
		return 1;
	printf("hello from %s\n", name.machine);
	return 0;
}
