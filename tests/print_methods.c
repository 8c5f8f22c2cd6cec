/* Prints the tables of docs/methods.md from the methods' own rows. Usage: print_methods methods|options */
#include <float.h>
#include <stdio.h>
#include <string.h>

#include "methods/method.h"

static const char *or_dash(const char *text)
{
    return text ? text : "–";
}

static void print_methods(void)
{
    printf("| method | chooses by | needs | selection FLOP | workspace beside the result's bits, bytes |\n"
           "|---|---|---|---|---|\n");
    for (int32_t i = 0; i < prism_method_count(); i++) {
        const prism_method_impl *m = prism_method_get((prism_method)i);
        const char *needs = m->needs_bands     ? "bands, block means"
                            : m->needs_means   ? "block means"
                            : m->needs_moments ? "moments"
                                               : "–";
        printf("| `%s` | %s | %s | %s | %s |\n", m->name, m->text, needs, or_dash(m->flop_text),
               or_dash(m->workspace_text));
    }
}

static void print_number(double x)
{
    if (x == FLT_TRUE_MIN)
        printf("above 0");
    else if (x == INT32_MAX || x == FLT_MAX)
        printf("any");
    else
        printf("%g", x);
}

static void print_value(const prism_option_info *o)
{
    if (o->kind == PRISM_OPTION_NAME)
        printf("%s | %s", o->names[(int)o->value], o->names[0]);
    else
        printf("%g | ", (double)(float)o->value);
    for (int32_t i = 1; i < o->n_name; i++)
        printf(", %s", o->names[i]);
    if (o->kind == PRISM_OPTION_NAME)
        return;
    print_number(o->min);
    printf(" to ");
    print_number(o->max);
}

static void print_methods_of(const char *option)
{
    int32_t n = 0;
    for (int32_t m = 0; m < prism_method_count(); m++)
        n += prism_method_uses((prism_method)m, option);
    if (n == prism_method_count()) {
        printf("all");
        return;
    }
    for (int32_t m = 0, k = 0; m < prism_method_count(); m++)
        if (prism_method_uses((prism_method)m, option))
            printf("%s%s", k++ ? ", " : "", prism_method_name((prism_method)m));
}

static void print_options(void)
{
    prism_option_info o = {.struct_size = sizeof o};
    printf("| option | methods | default | range | |\n|---|---|---|---|---|\n");
    for (int32_t i = 0; !prism_option_at(i, &o); i++) {
        printf("| `%s` | ", o.name);
        print_methods_of(o.name);
        printf(" | ");
        print_value(&o);
        printf(" | %s |\n", o.text);
    }
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "methods"))
        print_methods();
    else if (argc == 2 && !strcmp(argv[1], "options"))
        print_options();
    else
        return 2;
    return 0;
}
