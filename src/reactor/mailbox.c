#include "reactor/mailbox.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

struct vnl_mailbox {
    pthread_mutex_t lock;
    int eventfd;
    vnl_node posted; /* vnl_mail.link, first come first served */
};

vnl_mailbox *
vnl_mailbox_new(int fd)
{
    vnl_mailbox *mailbox = calloc(1, sizeof(*mailbox));
    if (mailbox != NULL) {
        pthread_mutex_init(&mailbox->lock, NULL);
        vnl_list_init(&mailbox->posted);
        mailbox->eventfd = fd;
    }
    return mailbox;
}

void
vnl_mailbox_free(vnl_mailbox *mailbox)
{
    if (mailbox == NULL) {
        return;
    }
    pthread_mutex_destroy(&mailbox->lock);
    free(mailbox);
}

vnl_wake *
vnl_mailbox_take(vnl_mailbox *mailbox)
{
    vnl_wake *wake = NULL;
    pthread_mutex_lock(&mailbox->lock);
    vnl_node *node = vnl_list_first(&mailbox->posted);
    if (node != NULL) {
        vnl_list_remove(node);
        wake = VNL_CONTAINER(node, vnl_mail, link)->wake;
    }
    pthread_mutex_unlock(&mailbox->lock);
    return wake;
}

void
vnl_mail_init(vnl_mail *mail)
{
    vnl_list_init(&mail->link);
    mail->wake = NULL;
}

void
vnl_mailbox_post(vnl_mailbox *mailbox, vnl_mail *mail)
{
    uint64_t one = 1;
    pthread_mutex_lock(&mailbox->lock);
    vnl_list_append(&mailbox->posted, &mail->link);
    pthread_mutex_unlock(&mailbox->lock);
    (void)!write(mailbox->eventfd, &one, sizeof(one));
}

void
vnl_mailbox_withdraw(vnl_mailbox *mailbox, vnl_mail *mail)
{
    pthread_mutex_lock(&mailbox->lock);
    vnl_list_remove(&mail->link);
    pthread_mutex_unlock(&mailbox->lock);
}
