#include "digest.h"

#include <pthread.h>
#include <stdlib.h>

#include "check.h"

static void check_hash(struct slice message, const char *wanted)
{
    struct digest digest;
    struct text hex;

    text_init(&hex, DIGEST_HEX);
    digest_sha256(message, &digest);
    digest_add_hex(&hex, &digest);
    CHECK_STR(text_string(&hex), hex.len, wanted);
    text_release(&hex);
}

TEST(sha256_gives_the_digests_of_the_standard)
{
    char *million = malloc(1000000);

    CHECK(million);
    memset(million, 'a', 1000000);
    check_hash((struct slice){ NULL, 0 }, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    check_hash(SLICE("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    check_hash(SLICE("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
               "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    /* One block takes 55 bytes and what goes behind them; with more there are two. */
    check_hash((struct slice){ million, 55 }, "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318");
    check_hash((struct slice){ million, 56 }, "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a");
    check_hash((struct slice){ million, 63 }, "7d3e74a05d7db15bce4ad9ec0658ea98e3f06eeecf16b4c6fff2da457ddc2f34");
    check_hash((struct slice){ million, 64 }, "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb");
    check_hash((struct slice){ million, 1000000 }, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(million);
}

static void *hash_a_lot(void *wanted)
{
    struct digest digest;

    for (unsigned i = 0; i < 1000; i++) {
        digest_sha256(SLICE("abc"), &digest);
        if (!digest_is(&digest, wanted))
            return NULL;
    }
    return wanted;
}

TEST(threads_do_not_disturb_each_others_hashes)
{
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    struct digest wanted;
    void *result;

    digest_sha256(SLICE("abc"), &wanted);
    for (unsigned i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, hash_a_lot, &wanted), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        CHECK_EQ(pthread_join(threads[i], &result), 0);
        CHECK(result == &wanted);
    }
}

TEST(digests_compare_by_every_byte)
{
    struct digest digest, other;

    digest_sha256(SLICE("abc"), &digest);
    for (unsigned i = 0; i < DIGEST_BYTES; i++) {
        other = digest;
        CHECK(digest_is(&digest, &other));
        other.bytes[i] ^= 1;
        CHECK(!digest_is(&digest, &other));
    }
}

TEST(hexadecimal_is_read_in_either_case_and_only_whole)
{
    static const char lower[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    static const char upper[] = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD";
    struct digest digest, wanted;
    char broken[DIGEST_HEX + 1];

    digest_sha256(SLICE("abc"), &wanted);
    CHECK(digest_parse_hex(SLICE(lower), &digest) && digest_is(&digest, &wanted));
    CHECK(digest_parse_hex(SLICE(upper), &digest) && digest_is(&digest, &wanted));
    CHECK(!digest_parse_hex((struct slice){ lower, DIGEST_HEX - 1 }, &digest));
    CHECK(!digest_parse_hex((struct slice){ lower, DIGEST_HEX + 1 }, &digest));
    for (unsigned i = 0; i < DIGEST_HEX; i++) {
        memcpy(broken, lower, sizeof broken);
        broken[i] = i % 2 ? 'g' : '@';
        CHECK_ROW(!digest_parse_hex(slice_of(broken), &digest), broken);
    }
}

TEST(random_bytes_fill_all_of_it_and_differ)
{
    unsigned char one[4096] = { 0 }, two[4096] = { 0 };
    unsigned zeros = 0;

    random_bytes(one, sizeof one);
    random_bytes(two, sizeof two);
    CHECK(memcmp(one, two, sizeof one) != 0);
    for (unsigned i = 0; i < sizeof one; i++)
        zeros += one[i] == 0;
    CHECK(zeros < 100); /* 16 are to be expected */
    random_bytes(one, 0);
}

TEST(random_letters_are_lower_case_and_each_about_as_often)
{
    enum { COUNT = 26 * 2000 };
    static char letters[COUNT + 1];
    unsigned seen[26] = { 0 };

    letters[COUNT] = '#';
    random_letters(letters, COUNT);
    CHECK_EQ(letters[COUNT], '#');
    for (unsigned i = 0; i < COUNT; i++) {
        CHECK(letters[i] >= 'a' && letters[i] <= 'z');
        seen[letters[i] - 'a']++;
    }
    for (unsigned i = 0; i < 26; i++) /* ten standard deviations around 2000 */
        CHECK(seen[i] > 1550 && seen[i] < 2450);
}

TEST(base64_is_told_from_what_is_not)
{
    static const struct {
        const char *text;
        long bytes; /* -1: not base64 */
    } rows[] = {
        { "", 0 },
        { "Zg==", 1 },
        { "Zm8=", 2 },
        { "Zm9v", 3 },
        { "Zm9vYg==", 4 },
        { "Zm9vYmFy", 6 },
        { "+/+/", 3 },
        { "Z", -1 },
        { "Zg", -1 },
        { "Zg=", -1 },
        { "Zg===", -1 },
        { "====", -1 },
        { "Z===", -1 },
        { "Zg==Zg==", -1 },
        { "Zm9v\n", -1 },
        { "Zm9 ", -1 },
        { "Zm9-", -1 },
        { "Zm9_", -1 },
        { "=Zm9", -1 },
        { "Zm\x80v", -1 },
        { "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", 29 },
        { "AAAAAAAAAAAAAAAAAAAAAAAAAAA*AAAAAAAAAAA=", -1 },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t bytes = 0;
        bool is_valid = base64_is_valid(slice_of(rows[i].text), &bytes);
        CHECK_ROW(is_valid == (rows[i].bytes >= 0), rows[i].text);
        CHECK_ROW(!is_valid || bytes == (size_t)rows[i].bytes, rows[i].text);
    }
}

TEST(crc32_is_the_one_of_zlib)
{
    CHECK_EQ(crc32_of((struct slice){ NULL, 0 }), 0);
    CHECK_EQ(crc32_of(SLICE("123456789")), 0xcbf43926);
    CHECK_EQ(crc32_of(SLICE("The quick brown fox jumps over the lazy dog")), 0x414fa339);
    CHECK_EQ(crc32_of(SLICE("\xff\xff\xff\xff")), 0xffffffff);
}

TEST(crc32c_is_that_of_the_standard_with_the_instruction_and_without)
{
    static const struct {
        const char *bytes;
        uint32_t sum;
    } rows[] = { { "", 0 }, { "a", 0xc1d04330 }, { "123456789", 0xe3069283 } };
    static const char zeros[32];
    char bytes[300];

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        CHECK_EQ(crc32c_of(0, slice_of(rows[i].bytes)), rows[i].sum);
        CHECK_EQ(crc32c_of_portably(0, slice_of(rows[i].bytes)), rows[i].sum);
    }
    CHECK_EQ(crc32c_of(0, (struct slice){ zeros, sizeof zeros }), 0x8a9136aa); /* RFC 3720, B.4 */
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)(i * 37);
    for (size_t from = 0; from < 9; from++)
        for (size_t len = 0; len + from <= sizeof bytes; len++) {
            struct slice part = { bytes + from, len }, head = { bytes + from, len / 3 };
            struct slice tail = { head.at + head.len, len - head.len };
            CHECK_EQ(crc32c_of(0, part), crc32c_of_portably(0, part));
            CHECK_EQ(crc32c_of(crc32c_of(0, head), tail), crc32c_of(0, part));
        }
}

TEST(a_message_in_pieces_has_the_digest_of_the_whole)
{
    char bytes[300];
    struct digest_run run;
    struct digest whole, pieces;

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)(i * 37);
    for (size_t len = 0; len <= sizeof bytes; len += 25) {
        digest_sha256((struct slice){ bytes, len }, &whole);
        digest_begin(&run);
        digest_add(&run, (struct slice){ bytes, len / 3 });
        digest_add(&run, (struct slice){ NULL, 0 });
        digest_add(&run, (struct slice){ bytes + len / 3, len - len / 3 });
        digest_end(&run, &pieces);
        CHECK(digest_is(&whole, &pieces));
    }
}
