/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The differences between the kernels that the module builds for, 6.1 to 7.3
 * (docs/src/kernels.md says which of them CI tests).
 * Every #if on the version of the kernel is in this file.
 */
#ifndef DMASHARE_COMPAT_H
#define DMASHARE_COMPAT_H

#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/version.h>

/*
 * The name of a namespace is a string since 6.13. Before, it was made one by
 * the macro, so that a quoted name compiles but asks for another namespace.
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
#define DMASHARE_IMPORT_DMA_BUF MODULE_IMPORT_NS("DMA_BUF")
#else
#define DMASHARE_IMPORT_DMA_BUF MODULE_IMPORT_NS(DMA_BUF)
#endif

/* vm_flags may only be changed through functions since 6.3. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static inline void vm_flags_clear(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags &= ~flags;
}
#endif

/* Newer than 6.1, but in some stable kernels too: the version does not tell. */
#ifndef kzalloc_obj
#define kzalloc_obj(obj, gfp) kzalloc(sizeof(obj), gfp)
#endif

#endif /* DMASHARE_COMPAT_H */
