/* A report as one HTML page: the tables, the verdicts, and plots as inline SVG. It needs no other file, no script and no network; what comes from the stream
 * is escaped. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "stream/report.h"
#include "stream/report_internal.h"

#define WIDTH 720
#define LABEL 270 /* of them for the models' names */
#define ROW 22
#define MAX_PLOTS 24
#define COLORS 6

static const char *const colors[COLORS] = {"#1f6feb", "#d1570a", "#2c8a43", "#8b46c9", "#b3261e", "#5b6b7b"};

static const char style[] =
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1a1d21;background:#fff}\n"
    "h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}\n"
    "table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums;display:block;overflow-x:auto}\n"
    "th,td{border-bottom:1px solid #d8dde3;padding:.3rem .7rem;text-align:left;white-space:nowrap}td.n,th.n{text-align:right}\n"
    "pre{background:#f3f5f7;padding:.8rem;overflow-x:auto}svg{max-width:100%;height:auto}svg text{font:12px system-ui,sans-serif;fill:#1a1d21}\n"
    ".pass{color:#2c8a43}.fail{color:#b3261e}.undecided{color:#9a6700}\n";

static void begin_svg(struct qp_buf *out, const char *title, int height)
{
    qp_buf_adds(out, "<h2>");
    qp_table_html(title, out);
    qp_buf_addf(out, "</h2>\n<svg viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\" aria-label=\"", WIDTH, height, WIDTH, height);
    qp_table_html(title, out);
    qp_buf_adds(out, "\">\n");
}

static void label(struct qp_buf *out, double x, double y, const char *anchor, const char *text)
{
    qp_buf_addf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
    qp_table_html(text, out);
    qp_buf_adds(out, "</text>\n");
}

static void number(struct qp_buf *out, double x, double y, const char *anchor, double v)
{
    char text[32];
    snprintf(text, sizeof text, "%.4g", v);
    label(out, x, y, anchor, text);
}

/* From a range of values to pixels. */
struct scale {
    double lo, hi, from, to;
};

static double at(const struct scale *s, double v)
{
    return s->from + (v - s->lo) / (s->hi - s->lo) * (s->to - s->from);
}

static void widen(struct scale *s, double v)
{
    if (!isfinite(v))
        return;
    s->lo = !(s->lo <= v) ? v : s->lo;
    s->hi = !(s->hi >= v) ? v : s->hi;
}

/* A little room at both ends; a single value gets some to both sides. */
static bool settle(struct scale *s)
{
    if (!isfinite(s->lo) || !isfinite(s->hi))
        return false;
    double room = s->hi > s->lo ? 0.05 * (s->hi - s->lo) : s->hi != 0 ? 0.1 * fabs(s->hi) : 1;
    s->lo -= room;
    s->hi += room;
    return true;
}

static double spread(const struct qp_report_result *x)
{
    return isfinite(x->se) ? 1.96 * x->se : 0;
}

/* A metric: a point for each model, its 95 % interval as a line, the first model's value as a dashed one. */
static void plot_metric(const struct qp_report *r, const char *metric, struct qp_buf *out)
{
    struct scale s = {NAN, NAN, LABEL, WIDTH - 90};
    const struct qp_report_result *x;
    int rows = 0;
    for (size_t i = 0; i < r->n; i++)
        if ((x = qp_report_find(&r->m[i], metric)) && isfinite(x->value)) {
            widen(&s, x->value - spread(x));
            widen(&s, x->value + spread(x));
            rows++;
        }
    if (!settle(&s))
        return;
    begin_svg(out, metric, rows * ROW + 30);
    if (r->n && (x = qp_report_find(&r->m[0], metric)) && isfinite(x->value))
        qp_buf_addf(out, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"0\" y2=\"%d\" stroke=\"#9aa4ae\" stroke-dasharray=\"3 3\"/>\n", at(&s, x->value), at(&s, x->value), rows * ROW + 6);
    for (size_t i = 0, row = 0; i < r->n; i++) {
        if (!(x = qp_report_find(&r->m[i], metric)) || !isfinite(x->value))
            continue;
        double y = (double)row++ * ROW + 14;
        label(out, LABEL - 10, y + 4, "end", r->m[i].id);
        qp_buf_addf(out, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" stroke-width=\"2\"/><circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"/>\n",
                    at(&s, x->value - spread(x)), at(&s, x->value + spread(x)), y, y, colors[i % COLORS], at(&s, x->value), y, colors[i % COLORS]);
        number(out, WIDTH - 80, y + 4, "start", x->value);
    }
    number(out, LABEL, rows * ROW + 22, "start", s.lo);
    number(out, WIDTH - 90, rows * ROW + 22, "end", s.hi);
    qp_buf_adds(out, "</svg>\n");
}

static void axes(struct qp_buf *out, const struct scale *x, const struct scale *y, const char *below, const char *beside)
{
    qp_buf_addf(out, "<path d=\"M%.1f %.1fV%.1fH%.1f\" fill=\"none\" stroke=\"#9aa4ae\"/>\n", x->from, y->to, y->from, x->to);
    number(out, x->from, y->from + 16, "start", x->lo);
    number(out, x->to, y->from + 16, "end", x->hi);
    label(out, (x->from + x->to) / 2, y->from + 16, "middle", below);
    number(out, x->from - 6, y->from, "end", y->lo);
    number(out, x->from - 6, y->to + 10, "end", y->hi);
    label(out, x->from - 6, (y->from + y->to) / 2, "end", beside);
}

/* What bits buy: bits a weight against the first metric that two models have. */
static void plot_bits(const struct qp_report *r, const char *metric, struct qp_buf *out)
{
    struct scale x = {NAN, NAN, 170, WIDTH - 160}, y = {NAN, NAN, 240, 10};
    const struct qp_report_result *v;
    int points = 0;
    char title[160];
    for (size_t i = 0; i < r->n; i++)
        if ((v = qp_report_find(&r->m[i], metric)) && isfinite(v->value) && isfinite(r->m[i].bpw)) {
            widen(&x, r->m[i].bpw);
            widen(&y, v->value);
            points++;
        }
    if (points < 2 || !settle(&x) || !settle(&y))
        return;
    snprintf(title, sizeof title, "%s by bits per weight", metric);
    begin_svg(out, title, 270);
    axes(out, &x, &y, "bits per linear weight", metric);
    for (size_t i = 0; i < r->n; i++)
        if ((v = qp_report_find(&r->m[i], metric)) && isfinite(v->value) && isfinite(r->m[i].bpw)) {
            qp_buf_addf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"/>\n", at(&x, r->m[i].bpw), at(&y, v->value), colors[i % COLORS]);
            bool left = at(&x, r->m[i].bpw) > WIDTH / 2.0;
            label(out, at(&x, r->m[i].bpw) + (left ? -8 : 8), at(&y, v->value) + 4, left ? "end" : "start", r->m[i].id);
        }
    qp_buf_adds(out, "</svg>\n");
}

/* How well each weight was quantized, in the order of the stream: the dips are what to keep at more bits. */
static void plot_layers(const struct qp_report *r, struct qp_buf *out)
{
    struct scale x = {NAN, NAN, 170, WIDTH - 20}, y = {NAN, NAN, 240, 10};
    for (size_t i = 0; i < r->n; i++)
        for (size_t k = 0; k < r->m[i].n_snr; k++) {
            widen(&x, (double)k);
            widen(&y, r->m[i].snr[k]);
        }
    if (!settle(&x) || !settle(&y))
        return;
    begin_svg(out, "Signal to noise of each quantized weight, decibels", 270 + ROW * (int)r->n);
    axes(out, &x, &y, "weight, in the model's order", "SNR, dB");
    for (size_t i = 0, row = 0; i < r->n; i++) {
        if (!r->m[i].n_snr)
            continue;
        bool drawn = false; /* a gap where a value is not finite */
        qp_buf_addf(out, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\" d=\"", colors[i % COLORS]);
        for (size_t k = 0; k < r->m[i].n_snr; k++) {
            bool ok = isfinite(r->m[i].snr[k]);
            if (ok)
                qp_buf_addf(out, "%s%.1f %.1f", drawn ? "L" : "M", at(&x, (double)k), at(&y, r->m[i].snr[k]));
            drawn = ok;
        }
        double down = 274 + (double)row++ * ROW;
        qp_buf_addf(out, "\"/>\n<line x1=\"170\" x2=\"195\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" stroke-width=\"3\"/>\n", down, down, colors[i % COLORS]);
        label(out, 202, down + 4, "start", r->m[i].id);
    }
    qp_buf_adds(out, "</svg>\n");
}

static void verdicts(const struct qp_report *r, struct qp_buf *out)
{
    for (size_t i = 0; i < r->n_verdicts; i++) {
        const char *v = r->verdict[i], *kind = !strncmp(v, "PASS", 4) ? "pass" : !strncmp(v, "FAIL", 4) ? "fail" : "undecided";
        qp_buf_addf(out, "<pre class=\"%s\">", kind);
        for (size_t n; *v; v += n + (v[n] == '\n')) {
            char line[512];
            n = strcspn(v, "\n");
            snprintf(line, sizeof line, "%.*s", (int)(n < sizeof line ? n : sizeof line - 1), v);
            qp_table_html(line, out);
            qp_buf_adds(out, v[n] ? "\n" : "");
        }
        qp_buf_adds(out, "</pre>\n");
    }
}

void qp_report_html(const struct qp_report *r, struct qp_buf *out)
{
    const char *names[MAX_PLOTS];
    qp_buf_adds(out, "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n<title>quantpipe report</title>\n<style>\n");
    qp_buf_adds(out, style);
    qp_buf_adds(out, "</style>\n<h1>quantpipe report</h1>\n");
    verdicts(r, out);
    qp_report_tables(r, QP_TABLE_HTML, out);
    size_t n = qp_report_metrics(r, names, MAX_PLOTS);
    if (n)
        plot_bits(r, names[0], out);
    for (size_t i = 0; i < n; i++)
        plot_metric(r, names[i], out);
    plot_layers(r, out);
    qp_buf_adds(out, "<p>Points with their 95 % intervals; the dashed line is the first model's value.</p>\n</html>\n");
}
