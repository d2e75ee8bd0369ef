/* Mailbox: how other threads end a wait of a poller's thread.  A wake that is
 * posted becomes ready in the poller that the mailbox belongs to.  Needs no
 * GIL. */
#ifndef VNL_REACTOR_MAILBOX_H
#define VNL_REACTOR_MAILBOX_H

#include "base/list.h"
#include "reactor/poller.h"

typedef struct vnl_mailbox vnl_mailbox;

/* What is posted; lives in the struct of whoever may post it. */
typedef struct {
    vnl_node link; /* in the mailbox, until it is taken */
    vnl_wake *wake;
} vnl_mail;

/* The poller's end.  `eventfd` is written to by each post. */
vnl_mailbox *vnl_mailbox_new(int eventfd);
void vnl_mailbox_free(vnl_mailbox *mailbox);
/* The next posted wake, or NULL. */
vnl_wake *vnl_mailbox_take(vnl_mailbox *mailbox);

/* From any thread. */
void vnl_mail_init(vnl_mail *mail);
void vnl_mailbox_post(vnl_mailbox *mailbox, vnl_mail *mail);
/* By the poller's thread, before the wake or the poller goes. */
void vnl_mailbox_withdraw(vnl_mailbox *mailbox, vnl_mail *mail);

#endif
