#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "config.h"

static char folder[64];

static void put(const char *name, const char *words, unsigned mode, char path[128])
{
    int fd;

    if (!*folder) {
        (void)snprintf(folder, sizeof folder, "/tmp/qg-config.XXXXXX");
        CHECK(mkdtemp(folder));
    }
    (void)snprintf(path, 128, "%s/%s", folder, name);
    (void)unlink(path);
    fd = open(path, O_CREAT | O_WRONLY | O_EXCL, mode);
    CHECK(fd >= 0 && write(fd, words, strlen(words)) == (ssize_t)strlen(words) && fchmod(fd, mode) == 0);
    (void)close(fd);
}

static void forget_environment(void)
{
    static const char *const names[] = { "SERVER", "TOKEN", "TOKEN_FILE", "CA_FILE",
                                         "OUTPUT", "COLOR", "TIMEOUT",    "RETRIES" };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char name[64];

        (void)snprintf(name, sizeof name, "QWADM_%s", names[i]);
        (void)unsetenv(name);
    }
    (void)setenv("XDG_CONFIG_HOME", "/nonexistent", 1);
}

static enum err load(struct config *config, const char *file, const struct config_flag *flags, struct text *why)
{
    text_init(why, 8192);
    return config_load(config, file, false, flags, why);
}

TEST(the_nearest_layer_holds)
{
    const struct config_flag flags[] = { { "timeout", "--timeout", "7s" }, { 0 } };
    struct config config;
    struct text why;
    char path[128];

    forget_environment();
    put("layers.yaml", "server: http://127.0.0.1:1\ntimeout: 1s\noutput: csv\nretries: 5\n", 0644, path);
    (void)setenv("QWADM_OUTPUT", "json", 1);
    (void)setenv("QWADM_TIMEOUT", "3s", 1);
    CHECK_EQ(load(&config, path, flags, &why), ERR_OK);
    CHECK_STR(config.server, strlen(config.server), "http://127.0.0.1:1");
    CHECK_EQ(config.output, 1);
    CHECK_EQ(config.timeout_ms, 7000);
    CHECK_EQ(config.retries, 5);
    CHECK_EQ(config.connect_timeout_ms, 5000);
    config_release(&config);
    text_release(&why);
    forget_environment();
}

TEST(the_users_file_is_found_under_xdg_and_home)
{
    struct config config;
    struct text why;
    char path[128];

    forget_environment();
    put("qwadm.yaml", "server: http://127.0.0.1:2\n", 0644, path);
    (void)setenv("XDG_CONFIG_HOME", folder, 1);
    CHECK_EQ(load(&config, NULL, NULL, &why), ERR_OK);
    CHECK_STR(config.server, strlen(config.server), "http://127.0.0.1:2");
    CHECK_STR(config.own_file, strlen(config.own_file), path);
    config_release(&config);
    text_release(&why);
    (void)setenv("XDG_CONFIG_HOME", "relative", 1); /* is none, as its specification has it */
    (void)setenv("HOME", "/home/x", 1);
    CHECK_EQ(load(&config, NULL, NULL, &why), ERR_OK);
    CHECK_STR(config.own_file, strlen(config.own_file), "/home/x/.config/qwadm.yaml");
    config_release(&config);
    text_release(&why);
    forget_environment();
}

/* The words, with the file where an @ stands. */
static void say_of(const char *file, const char *words, char *out, size_t bytes)
{
    size_t len = 0;

    for (; *words && len + 128 < bytes; words++)
        if (*words == '@')
            len += (size_t)snprintf(out + len, bytes - len, "%s", file);
        else
            out[len++] = *words;
    out[len] = 0;
}

static void is_refused(const char *file, const char *words)
{
    struct config config;
    struct text why;
    char wanted[512];

    CHECK_EQ(load(&config, file, NULL, &why), ERR_BAD);
    say_of(file, words, wanted, sizeof wanted);
    CHECK_STR(text_string(&why), why.len, wanted);
    config_release(&config);
    text_release(&why);
}

TEST(a_wrong_setting_is_said_with_its_place)
{
    char path[128];

    forget_environment();
    put("wrong.yaml", "servr: x\n", 0644, path);
    is_refused(path, "@:1: servr is not a known setting: did you mean server?");
    put("wrong.yaml", "token: qat_x\n", 0644, path);
    is_refused(path, "@ holds a token and others may read it: chmod 600 @");
    put("wrong.yaml", "token: qat_x\n", 0640, path);
    is_refused(path, "@ holds a token and others may read it: chmod 600 @");
    put("wrong.yaml", "token: qat_x\ntoken_file: y\n", 0600, path);
    is_refused(path, "@ says both token and token_file: which of them?");
    put("wrong.yaml", "output: table\n", 0600, path);
    (void)setenv("QWADM_OUTPUT", "xml", 1);
    is_refused(path, "QWADM_OUTPUT must be table, json or csv, not \"xml\"");
    forget_environment();
    (void)setenv("QWADM_TOKEN", "a\nb", 1);
    is_refused(path, "QWADM_TOKEN must be one line without control characters");
    forget_environment();
    is_refused("/nonexistent/qwadm.yaml", "@: cannot be read: No such file or directory");
}

TEST(a_token_that_is_nearer_takes_the_place_of_a_file_and_back)
{
    const struct config_flag flags[] = { { "token_file", "--token-file", NULL }, { 0 } };
    struct config_flag given[] = { { "token_file", "--token-file", NULL }, { 0 } };
    struct config config;
    struct text why;
    char path[128], secret[128];

    forget_environment();
    put("token", "qat_of_the_file\n", 0600, secret);
    put("tokens.yaml", "token: qat_of_the_settings\n", 0600, path);
    CHECK_EQ(load(&config, path, flags, &why), ERR_OK);
    CHECK_EQ(config_read_token(&config, &why), ERR_OK);
    CHECK_STR(config.token, strlen(config.token), "qat_of_the_settings");
    config_release(&config);
    text_release(&why);
    given[0].value = secret;
    CHECK_EQ(load(&config, path, given, &why), ERR_OK);
    CHECK_EQ(config_read_token(&config, &why), ERR_OK);
    CHECK_STR(config.token, strlen(config.token), "qat_of_the_file");
    config_release(&config);
    text_release(&why);
    (void)setenv("QWADM_TOKEN", "qat_of_the_environment", 1);
    CHECK_EQ(load(&config, path, NULL, &why), ERR_OK);
    CHECK_STR(config.token, strlen(config.token), "qat_of_the_environment");
    config_release(&config);
    text_release(&why);
    forget_environment();
}

TEST(a_token_file_is_its_owners_alone_and_one_line)
{
    static const struct {
        const char *words;
        unsigned mode;
        const char *why;
    } rows[] = {
        { "qat_x", 0604, "@ holds a token and others may read it: chmod 600 @" },
        { "qat_x", 0640, "@ holds a token and others may read it: chmod 600 @" },
        { "\n\n", 0600, "@ is empty, but a token should stand in it" },
        { "a\nb\n", 0600, "@ is not one line with a token" },
        { "\xff\n", 0600, "@ is not one line with a token" },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct text why, out;
        char path[128], wanted[512];

        text_init(&why, 4096);
        text_init(&out, 4096);
        put("secret", rows[i].words, rows[i].mode, path);
        CHECK_EQ(config_read_secret(path, &out, &why), ERR_BAD);
        say_of(path, rows[i].why, wanted, sizeof wanted);
        CHECK_STR(text_string(&why), why.len, wanted);
        CHECK_EQ(out.len, 0);
        text_release(&why);
        text_release(&out);
    }
}

TEST(what_is_kept_is_read_again_and_nobody_elses)
{
    struct config config, again;
    struct text why, second;
    struct stat status;
    char path[128];

    forget_environment();
    put("kept.yaml", "# mine\noutput: json\ntoken_file: /x\n", 0644, path);
    CHECK_EQ(load(&config, path, NULL, &why), ERR_OK);
    CHECK_EQ(config_keep(&config, "qat_\"new\\", &why), ERR_OK);
    CHECK(stat(path, &status) == 0 && (status.st_mode & 07777) == 0600);
    CHECK_EQ(load(&again, path, NULL, &second), ERR_OK);
    CHECK_EQ(config_read_token(&again, &second), ERR_OK);
    CHECK_STR(again.token, strlen(again.token), "qat_\"new\\");
    CHECK_STR(again.server, strlen(again.server), config.server);
    CHECK_EQ(again.output, 1);
    config_release(&config);
    config_release(&again);
    text_release(&why);
    text_release(&second);
}

__attribute__((destructor)) static void tidy_up(void)
{
    char command[128];

    if (*folder) {
        (void)snprintf(command, sizeof command, "rm -rf %s", folder);
        if (system(command) != 0)
            perror(folder);
    }
}
