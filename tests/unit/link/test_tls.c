#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "rig.h"
#include "terminator.h"

TEST(from_another_machine_both_sides_show_a_certificate)
{
    static const struct {
        const char *what, *ca, *own, *name;
        bool is_let_in;
    } rows[] = {
        { "a CA that is not ours", "other-ca.pem", "gateway.pem", "control.test", false },
        { "another name", "ca.pem", "gateway.pem", "elsewhere.test", false },
        { "no certificate", "ca.pem", NULL, "control.test", false },
        { "a certificate of another CA", "ca.pem", "stranger.pem", "control.test", false },
        { "as it should be", "ca.pem", "gateway.pem", "control.test", true },
    };
    char folder[64], ca[128], own[128];
    struct terminator *terminator;
    const char *url;

    (void)snprintf(folder, sizeof folder, "%s/qw-tls.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    CHECK(mkdtemp(folder));
    rig_open(NULL);
    terminator = terminator_open(rig.url, folder);
    url = terminator_url(terminator);
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct link_client_options options = {
            .name = "gw1",
            .identity = one,
            .urls = &url,
            .url_count = 1,
            .patience_ms = rows[i].is_let_in ? 5000 : 500,
            .tls_ca_file = ca,
            .tls_own_file = rows[i].own ? own : NULL,
            .tls_server_name = rows[i].name,
        };
        struct rig_client *client;
        (void)snprintf(ca, sizeof ca, "%s/%s", folder, rows[i].ca);
        (void)snprintf(own, sizeof own, "%s/%s", folder, rows[i].own ? rows[i].own : "");
        client = rig_client_with(0, &options);
        RIG_UNTIL(client->ups + client->downs > 0);
        CHECK_ROW(client->ups == rows[i].is_let_in, rows[i].what);
        rig_client_close(client);
    }
    CHECK_EQ(rig.hellos, 1);
    rig_close();
    terminator_close(terminator);
    (void)rmdir(folder);
}
