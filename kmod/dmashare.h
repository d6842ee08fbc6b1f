/* SPDX-License-Identifier: GPL-2.0 */
/* What the files of the module know of each other. */
#ifndef DMASHARE_H
#define DMASHARE_H

#include <linux/types.h>

struct dma_buf;

/* quota.c: how much memory may be held */
struct dmashare_quota;

void dmashare_quota_init(void);
struct dmashare_quota *dmashare_quota_open(void);
void dmashare_quota_close(struct dmashare_quota *quota);
int dmashare_quota_charge(struct dmashare_quota *quota, u64 size);
void dmashare_quota_uncharge(struct dmashare_quota *quota, u64 size);

/* exporter.c: the buffers */
struct dma_buf *dmashare_export(struct dmashare_quota *quota, u64 size);

#endif /* DMASHARE_H */
