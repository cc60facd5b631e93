/* test_tok_steps.c - one small tokenizer, every kind of normalizer, splitter, decoder and
 * post-processor: the ids and texts are those of Hugging Face's tokenizers 0.23.3. */
#include "base/json.h"
#include "text/tok.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* JSON below has ' for ". */
#define MODEL                                                                                      \
    "'type':'BPE','unk_token':'<unk>','vocab':{'<unk>':0,'<s>':1,'</s>':2,'a':3,'b':4,'A':5,"      \
    "' ':6,'.':7,'-':8,'1':9,'\302\275':10,'\303\251':11,'e':12,'i':13,'\314\201':14,"             \
    "'\314\207':15,'\342\200\215':16,'\343\200\200':17,'\342\226\201':18,'ab':19,'b.':20,'..':21," \
    "'-a':22,'a ':23,' b':24,'11':25,'1\302\275':26,'a1':27,'.-':28,'- ':29,'a\303\251':30,"       \
    "'. ':31,'1-':32,'ba':33,'b-':34,'-1':35,' 1':36},'merges':[['a','b'],['b','.'],['.','.'],"    \
    "['-','a'],['a',' '],[' ','b'],['1','1'],['1','\302\275'],['a','1'],['.','-'],['-',' '],['a'," \
    "'\303\251'],['.',' '],['1','-'],['b','a'],['b','-'],['-','1'],[' ','1']]"

static const struct {
    const char *part, *step, *text, *ids;
    const char *decoded; /* NULL: not looked at */
} row[] = {
    {"normalizer", "{'type':'Lowercase'}", "A\304\260 b", "3 13 15 24", NULL},
    {"normalizer", "{'type':'StripAccents'}", "ae\314\201 \303\251b", "3 12 6 11 4", NULL},
    {"normalizer", "{'type':'Strip','strip_left':true,'strip_right':true}",
     "\343\200\200 ab \343\200\200", "19", NULL},
    {"normalizer", "{'type':'Strip','strip_left':false,'strip_right':true}",
     "\343\200\200 ab \343\200\200", "17 6 19", NULL},
    {"normalizer", "{'type':'Replace','pattern':{'String':'.'},'content':'1'}", "ab.", "19 9",
     NULL},
    {"normalizer", "{'type':'Replace','pattern':{'Regex':'\\\\w'},'content':'-'}",
     "a\302\275\303\251 .\314\201\342\200\215", "8 8 29 28 16", NULL},
    {"normalizer", "{'type':'Replace','pattern':{'Regex':'\\\\W'},'content':'-'}",
     "a\302\275\303\251 .\314\201\342\200\215", "3 10 11 8 8 14 8", NULL},
    {"pre_tokenizer", "{'type':'Whitespace'}", "a b. \302\2751\342\200\215-a \303\251\314\201..",
     "3 4 7 10 9 16 8 3 11 14 21", NULL},
    {"pre_tokenizer", "{'type':'WhitespaceSplit'}", "a b.\343\200\200- 1", "3 20 8 9", NULL},
    {"pre_tokenizer", "{'type':'CharDelimiterSplit','delimiter':'.'}", "ab.-.b..11", "19 8 4 25",
     NULL},
    {"pre_tokenizer", "{'type':'Digits','individual_digits':true}", "a11\302\275 1", "3 9 9 10 6 9",
     NULL},
    {"pre_tokenizer", "{'type':'Digits','individual_digits':false}", "a11\302\275 1", "3 25 10 6 9",
     NULL},
    {"pre_tokenizer", "{'type':'Punctuation','behavior':'Isolated'}",
     "a b.. - ab.-.a11\302\275 1-a1- b", "23 4 7 7 6 8 6 19 7 8 7 3 25 10 36 8 27 8 24", NULL},
    {"pre_tokenizer",
     "{'type':'Split','pattern':{'Regex':'[b1]'},'behavior':'Isolated','invert':false}",
     "a b.. - ab.-.a11\302\275 1-a1- b", "23 4 21 6 29 3 4 28 7 3 9 9 10 6 9 22 9 29 4", NULL},
    {"pre_tokenizer",
     "{'type':'Split','pattern':{'Regex':'[b1]'},'behavior':'Isolated','invert':true}",
     "a b.. - ab.-.a11\302\275 1-a1- b", "23 4 21 6 29 3 4 28 7 3 9 9 10 6 9 22 9 29 4", NULL},
    {"pre_tokenizer", "{'type':'Punctuation','behavior':'Removed'}",
     "a b.. - ab.-.a11\302\275 1-a1- b", "23 4 6 6 19 3 25 10 36 27 24", NULL},
    {"pre_tokenizer",
     "{'type':'Split','pattern':{'Regex':'[b1]'},'behavior':'Removed','invert':false}",
     "a b.. - ab.-.a11\302\275 1-a1- b", "23 21 6 29 3 28 7 3 10 6 22 29", NULL},
    {"pre_tokenizer",
     "{'type':'Split','pattern':{'Regex':'[b1]'},'behavior':'Removed','invert':true}",
     "a b.. - ab.-.a11\302\275 1-a1- b", "4 4 9 9 9 9 4", NULL},
    {"pre_tokenizer", "{'type':'Punctuation','behavior':'MergedWithPrevious'}",
     "a b.. - ab.-.a11\302\275 1-a1- b", "23 20 7 6 8 6 19 7 8 7 3 25 10 6 32 27 8 24", NULL},
    {"pre_tokenizer",
     "{'type':'Split','pattern':{'Regex':'[b1]'},'behavior':'MergedWithPrevious','invert':false}",
     "a b.. - ab.-.a11\302\275 1-a1- b", "23 4 21 6 29 19 28 7 27 9 10 36 22 9 8 24", NULL},
    {"pre_tokenizer",
     "{'type':'Split','pattern':{'Regex':'[b1]'},'behavior':'MergedWithPrevious','invert':true}",
     "a b.. - ab.-.a11\302\275 1-a1- b", "23 20 31 29 3 20 8 7 3 9 26 6 9 22 9 29 4", NULL},
    {"pre_tokenizer", "{'type':'Punctuation','behavior':'MergedWithNext'}",
     "a b.. - ab.-.a11\302\275 1-a1- b", "23 4 7 31 29 19 7 8 7 3 25 10 36 22 9 8 24", NULL},
    {"pre_tokenizer",
     "{'type':'Split','pattern':{'Regex':'[b1]'},'behavior':'MergedWithNext','invert':false}",
     "a b.. - ab.-.a11\302\275 1-a1- b", "23 20 31 29 3 20 8 7 3 9 26 6 9 22 9 29 4", NULL},
    {"pre_tokenizer",
     "{'type':'Split','pattern':{'Regex':'[b1]'},'behavior':'MergedWithNext','invert':true}",
     "a b.. - ab.-.a11\302\275 1-a1- b", "23 4 21 6 29 19 28 7 27 9 10 36 22 9 8 24", NULL},
    {"pre_tokenizer", "{'type':'Punctuation','behavior':'Contiguous'}",
     "a b.. - ab.-.a11\302\275 1-a1- b", "23 4 21 6 8 6 19 28 7 3 25 10 36 8 27 8 24", NULL},
    {"pre_tokenizer",
     "{'type':'Split','pattern':{'Regex':'[b1]'},'behavior':'Contiguous','invert':false}",
     "a b.. - ab.-.a11\302\275 1-a1- b", "23 4 21 6 29 3 4 28 7 3 25 10 6 9 22 9 29 4", NULL},
    {"pre_tokenizer",
     "{'type':'Split','pattern':{'Regex':'[b1]'},'behavior':'Contiguous','invert':true}",
     "a b.. - ab.-.a11\302\275 1-a1- b", "23 4 21 6 29 3 4 28 7 3 25 10 6 9 22 9 29 4", NULL},
    {"pre_tokenizer",
     "{'type':'Split','pattern':{'String':'b.'},'behavior':'Isolated','invert':false}", "ab. ab.-",
     "3 20 6 3 20 8", NULL},
    {"pre_tokenizer",
     "{'type':'Metaspace','replacement':'\\u2581','prepend_scheme':'always','split':true}",
     "a b<s>a b", "18 3 18 4 1 18 3 18 4", NULL},
    {"pre_tokenizer",
     "{'type':'Metaspace','replacement':'\\u2581','prepend_scheme':'first','split':true}",
     "a b<s>a b", "18 3 18 4 1 3 18 4", NULL},
    {"pre_tokenizer",
     "{'type':'Metaspace','replacement':'\\u2581','prepend_scheme':'never','split':true}",
     "a b<s>a b", "3 18 4 1 3 18 4", NULL},
    {"post_processor",
     "{'type':'TemplateProcessing','single':[{'SpecialToken':{'id':'<s>','type_id':0}},{'Sequence':"
     "{'id':'A','type_id':0}},{'SpecialToken':{'id':'two','type_id':0}}],'pair':[{'Sequence':{'id':"
     "'A','type_id':0}},{'Sequence':{'id':'B','type_id':0}}],'special_tokens':{'<s>':{'id':'<s>','"
     "ids':[1],'tokens':['<s>']},'two':{'id':'two','ids':[2,1],'tokens':['</s>','<s>']}}}",
     "ab", "1 19 2 1", NULL},
    {"post_processor",
     "{'type':'RobertaProcessing','sep':['</"
     "s>',2],'cls':['<s>',1],'trim_offsets':true,'add_prefix_space':false}",
     "ab", "1 19 2", NULL},
    {"post_processor", "{'type':'BertProcessing','sep':['</s>',2],'cls':['<s>',1]}", "ab", "1 19 2",
     NULL},
    {"decoder", "{'type':'Fuse'}", "\342\226\201\342\226\201a b.\342\226\201<s>",
     "18 18 23 20 18 1", "\342\226\201\342\226\201a b.\342\226\201<s>"},
    {"decoder", "null", "a b", "23 4", "a  b"},
    {"decoder",
     "{'type':'Metaspace','replacement':'\\u2581','prepend_scheme':'always','split':true}",
     "\342\226\201a\342\226\201 b.\342\226\201<s>", "18 3 18 6 20 18 1", "a  b. <s>"},
    {"decoder",
     "{'type':'Metaspace','replacement':'\\u2581','prepend_scheme':'first','split':true}",
     "\342\226\201a\342\226\201 b.\342\226\201<s>", "18 3 18 6 20 18 1", "a  b. <s>"},
    {"decoder",
     "{'type':'Metaspace','replacement':'\\u2581','prepend_scheme':'never','split':true}",
     "\342\226\201a\342\226\201 b.\342\226\201<s>", "18 3 18 6 20 18 1", " a  b. <s>"},
    {"decoder",
     "{'type':'Sequence','decoders':[{'type':'Replace','pattern':{'String':'\\u2581'},'content':' "
     "'},{'type':'ByteFallback'},{'type':'Fuse'},{'type':'Strip','content':' "
     "','start':1,'stop':0}]}",
     "\342\226\201\342\226\201a b.\342\226\201<s>", "18 18 23 20 18 1", " a b. <s>"},
};

/* The tokenizer with this one step. */
static struct tok *tok_with(const char *part, const char *step)
{
    static const char form[] = "{'added_tokens':[{'id':1,'content':'<s>','special':true,"
                               "'normalized':false},{'id':2,'content':'</s>','special':true,"
                               "'normalized':false}],'%s':%s,'model':{%s}}";
    char json[8192];
    struct tok *t;
    struct err e;
    int n = snprintf(json, sizeof(json), form, part, step, MODEL);
    assert_true(n < (int)sizeof(json));
    for (char *c = json; *c; c++)
        *c = *c == '\'' ? '"' : *c;
    if (tok_load_json(json, strlen(json), step, &t, &e)) {
        print_message("%s\n", e.text);
        return NULL;
    }
    return t;
}

static void spell(const int *ids, size_t n, char *to, size_t room)
{
    size_t at = 0;
    to[0] = 0;
    for (size_t i = 0; i < n && at < room; i++)
        at += (size_t)snprintf(to + at, room - at, i ? " %d" : "%d", ids[i]);
}

static void every_kind_of_step_does_what_the_reference_does(void **state)
{
    int wrong = 0;
    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct tok *t = tok_with(row[i].part, row[i].step);
        struct err e;
        char got[512];
        int *ids, flags = TOK_SPECIAL | TOK_PARSE;
        size_t n;
        if (!t || tok_encode(t, row[i].text, strlen(row[i].text), flags, &ids, &n, &e)) {
            wrong++;
            continue;
        }
        spell(ids, n, got, sizeof(got));
        char *text = tok_decode(t, ids, n, false);
        if (strcmp(got, row[i].ids) || (row[i].decoded && strcmp(text, row[i].decoded))) {
            print_message("%s %s \"%s\":\n  %s \"%s\", not\n  %s\n", row[i].part, row[i].step,
                          row[i].text, got, text, row[i].ids);
            wrong++;
        }
        free(text);
        free(ids);
        tok_free(t);
    }
    assert_int_equal(wrong, 0);
}

static void an_added_token_is_looked_for_as_normalised_text_has_it(void **state)
{
    const char *json = "{\"added_tokens\":[{\"id\":2,\"content\":\"AB\",\"normalized\":true},"
                       "{\"id\":3,\"content\":\"BA\",\"normalized\":false}],"
                       "\"normalizer\":{\"type\":\"Lowercase\"},\"model\":{\"type\":\"BPE\","
                       "\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}}";
    struct tok *t;
    struct err e;
    int *ids;
    size_t n;
    char got[64];
    (void)state;
    if (tok_load_json(json, strlen(json), "file", &t, &e))
        fail_msg("%s", e.text);
    assert_int_equal(tok_encode(t, "aBBAba", 6, 0, &ids, &n, &e), 0);
    spell(ids, n, got, sizeof(got));
    assert_string_equal(got, "2 3 1 0");
    free(ids);
    tok_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_step_does_what_the_reference_does),
        cmocka_unit_test(an_added_token_is_looked_for_as_normalised_text_has_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
