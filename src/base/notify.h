/* notify.h - tell the service manager how the process stands: sd_notify(3) of systemd, without its
 * library: a datagram to the socket that NOTIFY_SOCKET names. */
#ifndef TANDEM_NOTIFY_H
#define TANDEM_NOTIFY_H

/* "READY=1", "STOPPING=1", "WATCHDOG=1" and the like. Nobody listens: nothing happens. */
void notify_manager(const char *state);

/* Seconds within which "WATCHDOG=1" is expected again and again; 0: it is not. */
double notify_watchdog_s(void);

#endif
