/* Intrusive doubly linked lists: a head is a node that points at itself.  A
 * member is found from its node with VNL_CONTAINER. */
#ifndef VNL_BASE_LIST_H
#define VNL_BASE_LIST_H

#include <stddef.h>

typedef struct vnl_node {
    struct vnl_node *prev, *next;
} vnl_node;

#define VNL_CONTAINER(node, type, member) ((type *)((char *)(node) - offsetof(type, member)))

static inline void
vnl_list_init(vnl_node *head)
{
    head->prev = head->next = head;
}

static inline int
vnl_list_empty(const vnl_node *head)
{
    return head->next == head;
}

/* Puts `node` before `at`: at the end when `at` is the head. */
static inline void
vnl_list_insert(vnl_node *at, vnl_node *node)
{
    node->prev = at->prev;
    node->next = at;
    at->prev->next = node;
    at->prev = node;
}

static inline void
vnl_list_append(vnl_node *head, vnl_node *node)
{
    vnl_list_insert(head, node);
}

static inline void
vnl_list_prepend(vnl_node *head, vnl_node *node)
{
    vnl_list_insert(head->next, node);
}

/* Unlinks; harmless on a node that is in no list (initialised to itself). */
static inline void
vnl_list_remove(vnl_node *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    node->prev = node->next = node;
}

/* NOLINT: the analyzer takes a freed member for one that is still linked. */
static inline vnl_node *
vnl_list_first(const vnl_node *head)
{
    return vnl_list_empty(head) ? NULL : head->next; // NOLINT(clang-analyzer-unix.Malloc)
}

static inline vnl_node *
vnl_list_last(const vnl_node *head)
{
    return vnl_list_empty(head) ? NULL : head->prev; // NOLINT(clang-analyzer-unix.Malloc)
}

#endif
