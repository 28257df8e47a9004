/*
 * terminator - what Nginx does in front of a control plane on another machine: a thread that takes TLS from callers who
 * show a certificate of its CA, and carries what is inside to a port. Certificates are made anew each time, in
 * `folder`: ca.pem, gateway.pem (certificate and key), stranger.pem (of another CA), other-ca.pem.
 */
#pragma once

struct terminator;

/* Its certificate is control.test's. */
struct terminator *terminator_open(const char *to_url, const char *folder);
/* The files are removed as well. */
void terminator_close(struct terminator *terminator);
const char *terminator_url(const struct terminator *terminator);
