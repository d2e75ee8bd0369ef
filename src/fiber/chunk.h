/* The memory in which CPython keeps a greenlet's frames, kept for the next greenlet: a mapping made, touched
 * and undone costs a strand more than all else about it. */
#ifndef VNL_FIBER_CHUNK_H
#define VNL_FIBER_CHUNK_H

/* In a greenlet that has had no Python frame yet. */
void vnl_chunk_lend(void);
/* In one that ends, and has none any more. */
void vnl_chunk_keep(void);

#endif
