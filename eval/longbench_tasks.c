/*
 * The 21 tasks. A prompt says what to do, gives the text, says it again where the text is long, asks, and ends with the
 * word that the answer follows; few-shot and code prompts are texts to be continued. The words are this project's own,
 * the order of parts, the fixed answers and the cues that the metrics rely on are LongBench's.
 */
#include "longbench_internal.h"

const char *const eval_longbench_categories[EVAL_LONGBENCH_N_CATEGORY] = {
    "single_doc_qa", "multi_doc_qa", "summarization", "few_shot", "synthetic", "code"};

const char *const eval_longbench_names[EVAL_LONGBENCH_N_TASK] = {"narrativeqa",
                                                                 "qasper",
                                                                 "multifieldqa_en",
                                                                 "multifieldqa_zh",
                                                                 "hotpotqa",
                                                                 "2wikimqa",
                                                                 "musique",
                                                                 "dureader",
                                                                 "gov_report",
                                                                 "qmsum",
                                                                 "multi_news",
                                                                 "vcsum",
                                                                 "trec",
                                                                 "triviaqa",
                                                                 "samsum",
                                                                 "lsht",
                                                                 "passage_count",
                                                                 "passage_retrieval_en",
                                                                 "passage_retrieval_zh",
                                                                 "lcc",
                                                                 "repobench-p"};

#define PASSAGES                                                                                                       \
    "Use the passages below to answer the question. Reply with the answer alone, without any other words.\n\n"         \
    "These are the passages.\n{context}\n\n"                                                                           \
    "Use the passages above to answer the question. Reply with the answer alone, without any other words.\n\n"         \
    "Question: {input}\nAnswer:"

const longbench_kind longbench_kinds[EVAL_LONGBENCH_N_TASK] = {
    {"narrativeqa", LONGBENCH_SINGLE_DOC, LONGBENCH_F1, EVAL_ENGLISH, 128,
     "Below is a story, a book or a film script, and a question about it. Answer as briefly as you can, with one "
     "phrase "
     "if that is enough, and explain nothing.\n\nStory: {context}\n\n"
     "Now answer the question about the story as briefly as you can, with one phrase if that is enough, and explain "
     "nothing.\n\nQuestion: {input}\n\nAnswer:"},
    {"qasper", LONGBENCH_SINGLE_DOC, LONGBENCH_F1, EVAL_ENGLISH, 128,
     "Below is a scientific article and a question about it. Answer as briefly as you can, with one phrase or sentence "
     "if that is enough. If the article does not hold the answer, write \"unanswerable\". If it is a yes/no question, "
     "answer \"yes\", \"no\" or \"unanswerable\". Explain nothing.\n\nArticle: {context}\n\n"
     "Answer the question about the article as briefly as you can, with one phrase or sentence if that is enough. If "
     "the "
     "article does not hold the answer, write \"unanswerable\". If it is a yes/no question, answer \"yes\", \"no\" or "
     "\"unanswerable\". Explain nothing.\n\nQuestion: {input}\n\nAnswer:"},
    {"multifieldqa_en", LONGBENCH_SINGLE_DOC, LONGBENCH_F1, EVAL_ENGLISH, 64,
     "Read the text and give a short answer to the question.\n\n{context}\n\n"
     "Answer the question from the text above. Reply with the answer alone, without any other words.\n\n"
     "Question: {input}\nAnswer:"},
    {"multifieldqa_zh", LONGBENCH_SINGLE_DOC, LONGBENCH_F1, EVAL_CHINESE, 64,
     "请先阅读下面的文字，再用中文简短地回答问题：\n\n{context}\n\n"
     "请根据上面的文字回答下面的问题，只写出答案，不要写任何别的内容。\n\n问题：{input}\n回答："},
    {"hotpotqa", LONGBENCH_MULTI_DOC, LONGBENCH_F1, EVAL_ENGLISH, 32, PASSAGES},
    {"2wikimqa", LONGBENCH_MULTI_DOC, LONGBENCH_F1, EVAL_ENGLISH, 32, PASSAGES},
    {"musique", LONGBENCH_MULTI_DOC, LONGBENCH_F1, EVAL_ENGLISH, 32, PASSAGES},
    {"dureader", LONGBENCH_MULTI_DOC, LONGBENCH_ROUGE, EVAL_CHINESE, 128,
     "请依据所给的文章回答问题。文章如下：\n\n{context}\n\n请依据上述文章回答问题。\n\n问题：{input}\n回答："},
    {"gov_report", LONGBENCH_SUMMARY, LONGBENCH_ROUGE, EVAL_ENGLISH, 512,
     "Below is a report by a government agency. Summarize it on one page.\n\nReport:\n{context}\n\n"
     "Summarize the report above on one page.\n\nSummary:"},
    {"qmsum", LONGBENCH_SUMMARY, LONGBENCH_ROUGE, EVAL_ENGLISH, 512,
     "Below is the transcript of a meeting and a query about it. Answer the query in one sentence or a few.\n\n"
     "Transcript:\n{context}\n\n"
     "Answer the query about the meeting above in one sentence or a few.\n\nQuery: {input}\nAnswer:"},
    {"multi_news", LONGBENCH_SUMMARY, LONGBENCH_ROUGE, EVAL_ENGLISH, 512,
     "Below are several news articles. Summarize all of them on one page.\n\nNews:\n{context}\n\n"
     "Summarize all the news above on one page.\n\nSummary:"},
    {"vcsum", LONGBENCH_SUMMARY, LONGBENCH_ROUGE, EVAL_CHINESE, 512,
     "下面是一份会议记录。请读完后写一段总结，概括会议的内容。\n会议记录：\n{context}\n\n会议总结："},
    {"trec", LONGBENCH_FEW_SHOT, LONGBENCH_CLASSIFICATION, EVAL_ENGLISH, 64,
     "Find the type of the last question. Questions with their types come first as examples.\n\n{context}\n{input}"},
    {"triviaqa", LONGBENCH_FEW_SHOT, LONGBENCH_F1, EVAL_ENGLISH, 32,
     "Answer the question about the passage. Reply with the answer alone, without any other words. Examples come "
     "first.\n\n{context}\n\n{input}"},
    {"samsum", LONGBENCH_FEW_SHOT, LONGBENCH_ROUGE, EVAL_ENGLISH, 128,
     "Sum up the dialogue in a few short sentences. Examples come first.\n\n{context}\n\n{input}"},
    {"lsht", LONGBENCH_FEW_SHOT, LONGBENCH_CLASSIFICATION, EVAL_CHINESE, 64,
     "请给出最后一条新闻所属的类别。前面是一些例子。\n\n{context}\n{input}"},
    {"passage_count", LONGBENCH_SYNTHETIC, LONGBENCH_COUNT, EVAL_ENGLISH, 32,
     "Below are paragraphs, some of which may be there more than once. Compare them and find out how many different "
     "paragraphs there are when repetitions are left out.\n\n{context}\n\n"
     "Write down how many different paragraphs there are, as a number only: 1, 2, 3 and so on.\n\nThe final answer "
     "is: "},
    {"passage_retrieval_en", LONGBENCH_SYNTHETIC, LONGBENCH_RETRIEVAL, EVAL_ENGLISH, 32,
     "Below are 30 paragraphs and an abstract of one of them. Find out which paragraph the abstract is of.\n\n"
     "{context}\n\nThis is the abstract.\n\n{input}\n\n"
     "Write down the number of the paragraph that the abstract is of, in the form \"Paragraph 1\", \"Paragraph 2\" and "
     "so "
     "on.\n\nThe answer is: "},
    {"passage_retrieval_zh", LONGBENCH_SYNTHETIC, LONGBENCH_RETRIEVAL, EVAL_CHINESE, 32,
     "下面有若干段文字和其中一段的摘要。请找出摘要写的是哪一段。\n\n{context}\n\n摘要如下：\n\n{input}\n\n"
     "请写出该段落的编号，格式为“段落1”、“段落2”等。\n\n答案是："},
    {"lcc", LONGBENCH_CODE, LONGBENCH_EDIT, EVAL_ENGLISH, 64,
     "Complete the code below.\n{context}Next line of code:\n"},
    {"repobench-p", LONGBENCH_CODE, LONGBENCH_EDIT, EVAL_ENGLISH, 64,
     "Complete the code below.\n{context}{input}Next line of code:\n"},
};
