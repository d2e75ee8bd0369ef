#include "base/list.h"

#include "check.h"

typedef struct {
    int number;
    vnl_node link;
} item;

/* The numbers of the list's members as decimal digits, read forwards; -1 when
 * the same list read backwards differs. */
static int
digits(vnl_node *head)
{
    int forwards = 0, backwards = 0, place = 1;

    for (vnl_node *node = head->next; node != head; node = node->next) {
        forwards = forwards * 10 + VNL_CONTAINER(node, item, link)->number;
    }
    for (vnl_node *node = head->prev; node != head; node = node->prev) {
        backwards += VNL_CONTAINER(node, item, link)->number * place;
        place *= 10;
    }
    return forwards == backwards ? forwards : -1;
}

static void
test_empty(void)
{
    vnl_node head;

    vnl_list_init(&head);
    CHECK(vnl_list_empty(&head));
    CHECK(vnl_list_first(&head) == NULL);
    CHECK(vnl_list_last(&head) == NULL);
    vnl_list_remove(&head);
    CHECK(vnl_list_empty(&head));
}

static void
test_order(void)
{
    vnl_node head;
    item items[4] = {{.number = 1}, {.number = 2}, {.number = 3}, {.number = 4}};

    vnl_list_init(&head);
    vnl_list_append(&head, &items[1].link);
    vnl_list_append(&head, &items[3].link);
    CHECK(digits(&head) == 24);
    vnl_list_prepend(&head, &items[0].link);
    CHECK(digits(&head) == 124);
    vnl_list_insert(&items[3].link, &items[2].link);
    CHECK(digits(&head) == 1234);
    CHECK(VNL_CONTAINER(vnl_list_first(&head), item, link) == &items[0]);
    CHECK(VNL_CONTAINER(vnl_list_last(&head), item, link) == &items[3]);
}

static void
test_remove(void)
{
    vnl_node head, other;
    item items[3] = {{.number = 1}, {.number = 2}, {.number = 3}};

    vnl_list_init(&head);
    vnl_list_init(&other);
    for (int i = 0; i < 3; i++) {
        vnl_list_append(&head, &items[i].link);
    }
    vnl_list_remove(&items[1].link);
    CHECK(digits(&head) == 13);
    vnl_list_remove(&items[1].link); /* twice: harmless */
    CHECK(digits(&head) == 13);
    vnl_list_append(&other, &items[1].link);
    CHECK(digits(&other) == 2);
    vnl_list_remove(&items[0].link);
    vnl_list_remove(&items[2].link);
    CHECK(vnl_list_empty(&head));
    CHECK(!vnl_list_empty(&other));
}

int
main(void)
{
    test_empty();
    test_order();
    test_remove();
    return checked();
}
