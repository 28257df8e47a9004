#include "others.h"

#include "check.h"
#include "conf.h"

static char words[1024];

static struct text why_text(void)
{
    return text_over(words, sizeof words);
}

static void put(struct others *others, const struct qw_change *change)
{
    struct text why = why_text();

    CHECK_EQ(others_put(others, change, &why), ERR_OK);
}

static void put_range(struct others *others, const char *cidr)
{
    put(others, &(struct qw_change){ .what = QW_RANGE, .range = { slice_of(cidr) } });
}

TEST(what_comes_again_is_replaced_and_what_goes_is_gone)
{
    struct others others = { 0 }, copy, again = { 0 };
    struct text packed, why = why_text();

    put_range(&others, "10.0.0.0/8");
    put_range(&others, "127.0.0.1");
    put_range(&others, "10.0.0.0/8");
    put(&others, &(struct qw_change){ .what = QW_SETTING, .setting = { SLICE("a"), SLICE("1") } });
    put(&others, &(struct qw_change){ .what = QW_SETTING, .setting = { SLICE("a"), SLICE("2") } });
    CHECK_EQ(others.count, 3);
    others_remove(&others, QW_SETTING, SLICE("10.0.0.0/8"));
    CHECK_EQ(others.count, 3);
    CHECK_EQ(others_copy(&others, &copy), ERR_OK);
    others_remove(&others, QW_RANGE, SLICE("127.0.0.1"));
    CHECK_EQ(others.count, 2);
    CHECK_EQ(copy.count, 3);
    text_init(&packed, 1 << 20);
    others_pack(&copy, &packed);
    CHECK_EQ(others_unpack(text_slice(&packed), &again, &why), ERR_OK);
    CHECK_EQ(again.count, 3);
    text_release(&packed);
    others_release(&others);
    others_release(&copy);
    others_release(&again);
}

TEST(the_tree_has_what_the_tables_read)
{
    const struct slice names[] = { SLICE("qwen3:32b"), SLICE("1") };
    const struct qw_names list = { names, 2 };
    const struct qw_number none = { 0 };
    struct others others = { 0 };
    struct text why = why_text();
    const struct conf_node *root, *node;
    struct conf *tree;

    put(&others,
        &(struct qw_change){
            .what = QW_BACKEND,
            .backend = {
                .name = SLICE("gpu1"), .url = SLICE("http://h"), .slots = 4, .is_standby = true, .models = &list } });
    put(&others, &(struct qw_change){ .what = QW_MODEL,
                                      .model = { .name = SLICE("house"),
                                                 .keep_alive = SLICE("-1"),
                                                 .max_prompt_chars = &none,
                                                 .think = QW_THINK_OFF } });
    put(&others,
        &(struct qw_change){ .what = QW_SETTING,
                             .setting = { SLICE("response_filter.strip"), SLICE(" [\"model\", \"a\\u0062\"] ") } });
    tree = others_tree(&others, "version 1", &why);
    CHECK(tree);
    root = tree->root;
    node = conf_member(root, "backends")->first;
    CHECK(slice_is(conf_member(node, "weight")->text, SLICE("0")) && !conf_member(node, "weight")->is_quoted);
    CHECK(slice_is(conf_member(node, "slots")->text, SLICE("4")) && !conf_member(node, "drain"));
    CHECK_EQ(conf_member(node, "models")->count, 2);
    CHECK(conf_member(node, "models")->last->is_quoted);
    node = conf_member(conf_member(root, "models"), "house");
    CHECK(slice_is(conf_member(node, "keep_alive")->text, SLICE("-1")) && !conf_member(node, "keep_alive")->is_quoted);
    CHECK(slice_is(conf_member(node, "think")->text, SLICE("false")) && !conf_member(node, "model"));
    CHECK(slice_is(conf_member(node, "max_prompt_chars")->text, SLICE("0")) && !conf_member(node, "max_system_chars"));
    node = conf_member(conf_member(root, "settings"), "response_filter.strip");
    CHECK(node->kind == CONF_LIST && node->count == 2 && slice_is(node->last->text, SLICE("ab")));
    conf_free(tree);
    others_release(&others);
}

TEST(a_value_that_is_no_json_is_told_by_name)
{
    static const char *const bad[] = { "", "{", "{\"a\":1}", "[[1]", "\"\\u0000\"", "1 2", "nul" };

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct others others = { 0 };
        struct text why = why_text();
        const struct qw_change change = { .what = QW_SETTING, .setting = { SLICE("x"), slice_of(bad[i]) } };
        if (others_put(&others, &change, &why) == ERR_OK) {
            CHECK_ROW(!others_tree(&others, "version 1", &why), bad[i]);
            CHECK_STR(words, strlen(words), "version 1: the setting \"x\" has a value that cannot be taken");
        }
        others_release(&others);
    }
}
