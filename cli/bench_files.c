/* prism bench: CSV, the data of a picture, the picture. */
#include "bench_command.h"

#include <stdlib.h>
#include <string.h>

#include "lm/file.h"

/* -------------------------------------------------------------------------------------------------- data ---- */

static bool put_text(lm_writer *w, const char *text, lm_error *err)
{
    return lm_writer_put(w, text, strlen(text), err);
}

/* Quoted where the text holds what would end a cell. */
static bool put_cell(lm_writer *w, const char *text, lm_error *err)
{
    if (!strpbrk(text, ",\"\n\r"))
        return put_text(w, text, err);
    bool ok = put_text(w, "\"", err);
    for (; ok && *text; text++)
        ok = lm_writer_put(w, *text == '"' ? "\"\"" : text, *text == '"' ? 2 : 1, err);
    return ok && put_text(w, "\"", err);
}

static bool put_value(lm_writer *w, const cJSON *value, lm_error *err)
{
    if (cJSON_IsString(value))
        return put_cell(w, value->valuestring, err);
    if (cJSON_IsNull(value)) /* not measured: an empty cell */
        return true;
    char *text = cJSON_PrintUnformatted(value);
    const bool ok = text ? put_cell(w, text, err) : lm_fail(err, LM_ERROR_MEMORY, "out of memory for the CSV file");
    cJSON_free(text);
    return ok;
}

/* A line of names, then a line for each row: all rows have the same members in the same order. */
static bool put_csv(lm_writer *w, const cJSON *report, lm_error *err)
{
    const cJSON *rows = cJSON_GetObjectItemCaseSensitive(report, "results"), *row, *value;
    bool ok = true;
    for (value = rows->child ? rows->child->child : NULL; ok && value; value = value->next)
        ok = put_cell(w, value->string, err) && put_text(w, value->next ? "," : "\n", err);
    cJSON_ArrayForEach(row, rows)
    {
        for (value = row->child; ok && value; value = value->next)
            ok = put_value(w, value, err) && put_text(w, value->next ? "," : "\n", err);
    }
    return ok;
}

static bool put_json(lm_writer *w, const cJSON *report, lm_error *err)
{
    char *text = cJSON_Print(report);
    const bool ok = text ? put_text(w, text, err) && put_text(w, "\n", err)
                         : lm_fail(err, LM_ERROR_MEMORY, "out of memory for the data file");
    cJSON_free(text);
    return ok;
}

static int write_file(const char *path, bool (*put)(lm_writer *, const cJSON *, lm_error *), const cJSON *report)
{
    lm_error err;
    lm_writer w = {0};
    const bool ok = lm_writer_open(&w, path, &err) && put(&w, report, &err) && lm_writer_commit(&w, &err);
    if (!ok)
        lm_writer_discard(&w);
    return ok ? EXIT_DONE : cli_fail_lm(&err);
}

bool bench_data_path(const char *picture, char *path, size_t n)
{
    const char *name = strrchr(picture, '/'), *ending = strrchr(name ? name : picture, '.');
    static const char *const endings[] = {".png", ".svg", ".pdf", NULL};
    if (!ending || !cli_has_ending(picture, endings) || strlen(picture) + sizeof ".json" > n)
        return false;
    memcpy(path, picture, (size_t)(ending - picture));
    strcpy(path + (ending - picture), ".json");
    return true;
}

int bench_write_files(const bench_state *s)
{
    char path[4096];
    int code = s->args->csv ? write_file(s->args->csv, put_csv, s->report) : EXIT_DONE;
    if (!code && s->args->plot && bench_data_path(s->args->plot, path, sizeof path))
        code = write_file(path, put_json, s->report);
    return code;
}

/* --------------------------------------------------------------------------------------------- picture ---- */

int bench_draw(const bench_args *args)
{
    char script[4096], data[4096];
    if (!args->plot || !bench_data_path(args->plot, data, sizeof data))
        return EXIT_DONE;
    if (!cli_find_script("plot_bench.py", args->tools, script, sizeof script))
        return cli_fail(EXIT_RUN,
                        "no picture: plot_bench.py is not %s%s; --tools says where it is. The data are in '%s'",
                        args->tools ? "in " : "beside the program", args->tools ? args->tools : "", data);
    const int code = cli_run_python((const char *[]){script, "--", data, args->plot, NULL});
    if (code == CLI_NO_PYTHON)
        return cli_fail(EXIT_RUN, "no picture: there is no python3 on the PATH. The data are in '%s'", data);
    if (code == CLI_NO_MATPLOTLIB) /* the script has said so, with what to install */
        return cli_fail(EXIT_RUN, "no picture: python3 lacks matplotlib. The data are in '%s'", data);
    if (code)
        return cli_fail(EXIT_RUN, "no picture: %s failed. The data are in '%s'", script, data);
    fprintf(stderr, "wrote %s and %s\n", args->plot, data);
    return EXIT_DONE;
}
