#!/usr/bin/env python3
"""Templates rendered by jinja2 in the sandbox of transformers (chat) and as lm-evaluation-harness renders them (strict).

    python tests/golden/make_templates.py        # writes tests/golden/templates.json

{"peer", "date", "cases": [{"name", "template", "mode": "chat" or "strict", "values", "out": text, or null where the peer raises an error}]}
The chat templates are written for this project: they use the constructs of the families that they are named after.
"""
import datetime
import json
import pathlib

import jinja2
import transformers
from transformers.utils import chat_template_utils

DATE = 1721995200 + 3600  # 2024-07-26 13:00 UTC
OUT = pathlib.Path(__file__).resolve().parent / "templates.json"

USER = [{"role": "user", "content": "What is 2+2?"}]
SYSTEM = [{"role": "system", "content": "  Be brief. "}, {"role": "user", "content": " Hi\n"}, {"role": "assistant", "content": "Hello <b>&'\" na\u00efve\u2028 \u6771\u4eac"},
          {"role": "user", "content": "Why?\n\nTell me."}]
THINK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nb"}, {"role": "user", "content": "c"},
         {"role": "assistant", "content": "<think>\nlast\n</think>\n\nd"}]
BAD = [{"role": "assistant", "content": "x"}]
PARTS = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " look "}]}]

CHAT = {
    "chatml": "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
              "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "smollm": "{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
              "{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "zephyr": "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n"
              "{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
              "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
    "llama2": "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set sys = messages[0]['content'] %}{% else %}{% set rest = messages %}{% set sys = false %}{% endif %}"
              "{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate user/assistant') }}{% endif %}"
              "{% if loop.index0 == 0 and sys != false %}{% set content = '<<SYS>>\\n' + sys + '\\n<</SYS>>\\n\\n' + m['content'] %}{% else %}{% set content = m['content'] %}{% endif %}"
              "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif m['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    "llama3": "{{- bos_token }}\n{%- if custom_tools is defined %}\n    {%- set tools = custom_tools %}\n{%- endif %}\n{%- if not date_string is defined %}\n    {%- if strftime_now is defined %}\n"
              "        {%- set date_string = strftime_now(\"%d %b %Y\") %}\n    {%- else %}\n        {%- set date_string = \"26 Jul 2024\" %}\n    {%- endif %}\n{%- endif %}\n"
              "{%- if not tools is defined %}\n    {%- set tools = none %}\n{%- endif %}\n\n{#- This block takes the system message out #}\n"
              "{%- if messages[0]['role'] == 'system' %}\n    {%- set system_message = messages[0]['content']|trim %}\n    {%- set messages = messages[1:] %}\n{%- else %}\n"
              "    {%- set system_message = \"\" %}\n{%- endif %}\n\n{#- System message #}\n{{- \"<|start_header_id|>system<|end_header_id|>\\n\\n\" }}\n{%- if tools is not none %}\n"
              "    {{- \"Environment: ipython\\n\" }}\n{%- endif %}\n{{- \"Today Date: \" + date_string + \"\\n\\n\" }}\n{{- system_message }}\n{{- \"<|eot_id|>\" }}\n"
              "{%- for message in messages %}\n    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}\n"
              "        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}\n    {%- elif 'tool_calls' in message %}\n"
              "        {%- if not message.tool_calls|length == 1 %}\n            {{- raise_exception(\"one call at once\") }}\n        {%- endif %}\n"
              "        {%- set call = message.tool_calls[0].function %}\n        {{- '{\"name\": \"' + call.name + '\", \"parameters\": ' }}\n        {{- call.arguments | tojson }}\n        {{- \"}\" }}\n"
              "    {%- endif %}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n{%- endif %}\n",
    "qwen2": "{%- if tools %}\n    {{- '<|im_start|>system\\n' }}\n    {%- for tool in tools %}\n        {{- \"\\n\" }}\n        {{- tool | tojson }}\n    {%- endfor %}\n{%- else %}\n"
             "    {%- if messages[0]['role'] == 'system' %}\n        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}\n    {%- else %}\n"
             "        {{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}\n    {%- endif %}\n{%- endif %}\n{%- for message in messages %}\n"
             "    {%- if (message.role == \"user\") or (message.role == \"system\" and not loop.first) or (message.role == \"assistant\" and not message.tool_calls) %}\n"
             "        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n    {%- elif message.role == \"assistant\" %}\n        {{- '<|im_start|>' + message.role }}\n"
             "        {%- for call in message.tool_calls %}\n            {%- if call.function is defined %}\n                {%- set call = call.function %}\n            {%- endif %}\n"
             "            {{- '\\n<tool_call>\\n{\"name\": \"' }}\n            {{- call.name }}\n            {{- '\", \"arguments\": ' }}\n            {{- call.arguments | tojson }}\n            {{- '}\\n</tool_call>' }}\n"
             "        {%- endfor %}\n        {{- '<|im_end|>\\n' }}\n    {%- endif %}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n",
    "qwen3": "{%- set ns = namespace(multi=true, last=messages|length - 1) %}\n{%- for message in messages[::-1] %}\n    {%- set index = (messages|length - 1) - loop.index0 %}\n"
             "    {%- if ns.multi and message.role == \"user\" and message.content is string and not(message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}\n"
             "        {%- set ns.multi = false %}\n        {%- set ns.last = index %}\n    {%- endif %}\n{%- endfor %}\n{%- for message in messages %}\n"
             "    {%- if message.content is string %}\n        {%- set content = message.content %}\n    {%- else %}\n        {%- set content = '' %}\n    {%- endif %}\n"
             "    {%- if message.role == \"assistant\" %}\n        {%- set thought = '' %}\n        {%- if message.reasoning_content is string %}\n            {%- set thought = message.reasoning_content %}\n"
             "        {%- else %}\n            {%- if '</think>' in content %}\n                {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}\n"
             "                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}\n            {%- endif %}\n        {%- endif %}\n        {%- if loop.index0 > ns.last %}\n"
             "            {%- if loop.last or (not loop.last and thought) %}\n                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}\n"
             "            {%- else %}\n                {{- '<|im_start|>' + message.role + '\\n' + content }}\n            {%- endif %}\n        {%- else %}\n"
             "            {{- '<|im_start|>' + message.role + '\\n' + content }}\n        {%- endif %}\n        {{- '<|im_end|>\\n' }}\n    {%- else %}\n"
             "        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}\n    {%- endif %}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n"
             "    {%- if enable_thinking is defined and enable_thinking is false %}\n        {{- '<think>\\n\\n</think>\\n\\n' }}\n    {%- endif %}\n{%- endif %}",
    "mistral": "{%- if messages[0][\"role\"] == \"system\" %}\n    {%- set system_message = messages[0][\"content\"] %}\n    {%- set loop_messages = messages[1:] %}\n{%- else %}\n"
               "    {%- set loop_messages = messages %}\n{%- endif %}\n{%- set user_messages = loop_messages | selectattr(\"role\", \"equalto\", \"user\") | list %}\n{%- set ns = namespace() %}\n{%- set ns.index = 0 %}\n"
               "{%- for message in loop_messages %}\n    {%- if not (message.role == \"tool\" or (message.tool_calls is defined and message.tool_calls is not none)) %}\n"
               "        {%- if (message[\"role\"] == \"user\") != (ns.index % 2 == 0) %}\n            {{- raise_exception(\"roles must alternate\") }}\n        {%- endif %}\n        {%- set ns.index = ns.index + 1 %}\n"
               "    {%- endif %}\n{%- endfor %}\n{{- bos_token }}\n{%- for message in loop_messages %}\n    {%- if message[\"role\"] == \"user\" %}\n        {%- if loop.last and system_message is defined %}\n"
               "            {{- \"[INST] \" + system_message + \"\\n\\n\" + message[\"content\"] + \"[/INST]\" }}\n        {%- else %}\n            {{- \"[INST] \" + message[\"content\"] + \"[/INST]\" }}\n        {%- endif %}\n"
               "    {%- elif message[\"role\"] == \"assistant\" %}\n        {{- \" \" + message[\"content\"]|trim + eos_token}}\n    {%- else %}\n        {{- raise_exception(\"Only user and assistant\") }}\n    {%- endif %}\n"
               "{%- endfor %}\n{{ user_messages|length }}",
    "gemma": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}"
             "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
             "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
             "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}",
    "gemma3": "{{ bos_token }}\n{%- if messages[0]['role'] == 'system' -%}\n    {%- if messages[0]['content'] is string -%}\n        {%- set first = messages[0]['content'] + '\n\n' -%}\n    {%- else -%}\n"
              "        {%- set first = messages[0]['content'][0]['text'] + '\n\n' -%}\n    {%- endif -%}\n    {%- set rest = messages[1:] -%}\n{%- else -%}\n    {%- set first = \"\" -%}\n    {%- set rest = messages -%}\n{%- endif -%}\n"
              "{%- for message in rest -%}\n    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}\n    {{ '<start_of_turn>' + role + '\n' + (first if loop.first else \"\") }}\n"
              "    {%- if message['content'] is string -%}\n        {{ message['content'] | trim }}\n    {%- elif message['content'] is iterable -%}\n        {%- for item in message['content'] -%}\n"
              "            {%- if item['type'] == 'image' -%}\n                {{ '<start_of_image>' }}\n            {%- elif item['type'] == 'text' -%}\n                {{ item['text'] | trim }}\n            {%- endif -%}\n"
              "        {%- endfor -%}\n    {%- else -%}\n        {{ raise_exception(\"Invalid content type\") }}\n    {%- endif -%}\n    {{ '<end_of_turn>\n' }}\n{%- endfor -%}\n{%- if add_generation_prompt -%}\n    {{'<start_of_turn>model\n'}}\n{%- endif -%}\n",
    "phi3": "{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}"
            "{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
    "macros": "{%- macro part(content, trim=true) %}\n{%- if content is string %}{{ content | trim if trim else content }}{% else %}{% for c in content if c.type == 'text' %}{{ c.text }}{% else %}nothing{% endfor %}{% endif %}\n"
              "{%- endmacro -%}\n{% for m in messages -%}\n  [{{ m.role }}] {{ part(m.content) }}|{{ part(m.content, trim=false) }}\n{% endfor %}\n{%- generation %}gen{% endgeneration %}\n",
}

V = {"messages": SYSTEM, "n": 7, "x": 2.5, "big": 1e16, "items": [3, 1, 2], "words": ["b", "A", "c"], "d": {"b": 1, "a": {"z": [1, None, True, 0.1, "q\"'"]}}, "s": "  Hello, W\u00f6rld! ", "t": "a-b-c-d",
     "empty": "", "none_value": None, "yes": True, "people": [{"name": "Ann", "age": 30}, {"name": "bob", "age": 25}, {"name": "Cy"}]}

SNIPPETS = [
    # output, operators, precedence
    "{{ n + 1 }} {{ n - 10 }} {{ n * 2 }} {{ n / 2 }} {{ n // 2 }} {{ -n // 2 }} {{ -n % 3 }} {{ n % -3 }} {{ 2 ** 10 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ 2 ** -1 }}",
    "{{ x + 1 }} {{ x * 2 }} {{ 1 / 3 }} {{ 1e3 }} {{ 1.0 }} {{ 1e22 }} {{ 1.5e-7 }} {{ 123456789.125 }} {{ big }} {{ 0.1 + 0.2 }} {{ 7.0 // 2 }} {{ -7.5 % 2 }} {{ 100000000000000.0 }}",
    "{{ 1 ~ 2 ~ 'a' ~ none ~ true ~ x }} {{ 'a' 'b' \"c\" }} {{ 'ab' * 3 }} {{ 2 * 'x' }} {{ [1] * 2 }} {{ [1, 2] + [3] }} {{ (1, 2) + (3,) }} {{ () }} {{ (1,) }}",
    "{{ 1 < 2 < 3 }} {{ 1 < 2 > 3 }} {{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' < 'b' }} {{ 'a' in 'cat' }} {{ 5 not in items }} {{ not 1 in items }} {{ 'b' in d }} {{ 3 in [1, 2] }} {{ '' in 'x' }}",
    "{{ not yes or n }} {{ yes and n }} {{ empty or 'other' }} {{ none_value and 1 }} {{ yes if n > 5 }} {{ 'no' if n > 50 else 'low' }} [{{ 'x' if false }}] {{ 1 if false else 2 if false else 3 }}",
    "{{ true }} {{ True }} {{ none }} {{ None }} {{ false }} {{ [true, none, 1.5, 'it\\'s', \"q\\\"\", 'b\\\\n\\n\\t', {'k': (1,)}] }} {{ {'a': 1, 'b': [2]} }} {{ '\\u00e9\\x41\\101\\q' }} {{ 'a\\\nb' }}",
    "{{ [1, 2, 3][0] }} {{ items[-1] }} {{ items[1:] }} {{ items[:-1] }} {{ items[::-1] }} {{ items[::2] }} {{ items[5:] }} {{ s[2:7] }} {{ s[::-1] }} {{ s[10] }} {{ s[-2] }} {{ (1,2,3)[1:] }} {{ items[-9:9] }} {{ s[-3:-9:-2] }}",
    "{{ d.a.z }} {{ d['a']['z'][4] }} {{ d.missing }}[{{ d['missing'] }}] {{ items.0 }} {{ d.get('b') }} {{ d.get('q') }} {{ d.get('q', 5) }} {{ d.items() | list }} {{ d.keys() | list }} {{ d.values() | list | length }}",
    "{{ missing }}[{{ missing | default('d') }}][{{ empty | default('d') }}][{{ empty | default('d', true) }}][{{ empty | d('e', boolean=true) }}] {{ missing is defined }} {{ missing is not defined }} {{ missing is undefined }}",
    "{{ missing.x }}", "{{ missing + 1 }}", "{{ d.q.r }}", "{{ missing() }}", "{{ 'a' + 1 }}", "{{ 1 / 0 }}", "{{ 1 % 0 }}", "{{ items.append(4) }}", "{{ 'a' < 1 }}", "{{ n.x.y }}", "{{ raise_exception('no: ' + s) }}",
    "{{ none_value.x }}", "{{ for }}", "{{ 1 + }}", "{% if %}{% endif %}", "{% if 1 %}", "{% endif %}", "{{ 'abc }}", "{{ (1 }}", "{% for x in %}{% endfor %}", "{{ 1 2 }}", "{# never", "{{ }}", "{% set %}", "{% nothing %}",
    "{{ 'x' | nosuch }}", "{{ 'x' is nosuch }}", "{% break %}", "{{ n[0] }}", "{{ items['a'] }}", "{{ not missing }} {{ missing == missing }} {{ missing == 1 }} {{ missing in items }} {{ missing | length }} {{ missing | list }}",
    # filters
    "[{{ s | trim }}] [{{ 'xxaxx' | trim('x') }}] {{ s | upper }} {{ s | lower }} {{ 'hello wORLD it\\'s' | title }} {{ 'hELLO' | capitalize }} {{ s | length }} {{ s | count }} {{ items | length }} {{ d | length }}",
    "{{ items | join }} {{ items | join(', ') }} {{ words | sort | join }} {{ words | sort(case_sensitive=true) | join }} {{ items | sort(reverse=true) }} {{ people | map(attribute='name') | join('/') }} {{ people | sort(attribute='name') | map(attribute='name') | list }}",
    "{{ people | selectattr('age') | list | length }} {{ people | selectattr('age', 'defined') | map(attribute='age') | sum }} {{ people | rejectattr('age', 'defined') | map(attribute='name') | first }} {{ people | selectattr('name', 'equalto', 'bob') | list }}",
    "{{ items | select('odd') | list }} {{ items | reject('odd') | list }} {{ items | select('gt', 1) | list }} {{ [0, 1, '', 'a', none] | select | list }} {{ words | map('upper') | list }} {{ [[1], []] | map('length') | list }}",
    "{{ items | first }} {{ items | last }} {{ items | min }} {{ items | max }} {{ items | sum }} {{ items | reverse | list }} {{ 'abc' | reverse }} {{ 'abc' | list }} {{ d | list }} {{ [1, 1, 2] | unique | list }} {{ ['a', 'A'] | unique | list }}",
    "{{ '42' | int }} {{ 'x' | int }} {{ 'x' | int(5) }} {{ 3.9 | int }} {{ '2.5' | float }} {{ 'q' | float }} {{ -3 | abs }} {{ (-3) | abs }} {{ 2.567 | round(2) }} {{ 2.5 | round }} {{ 2.4 | round(method='ceil') }} {{ true | int }} {{ 7 | float }}",
    "{{ d | tojson }} {{ d | tojson(indent=2) }} {{ [] | tojson(indent=2) }} {{ {} | tojson }} {{ 'na\u00efve \\n\\t\\\\ \\x01 \"' | tojson }} {{ 1.0 | tojson }} {{ none | tojson }} {{ d | tojson(sort_keys=true) }} {{ [1, [2, {}]] | tojson(indent=1) }}",
    "{{ d | items | list }} {{ d | dictsort }} {{ 5 | string + 'x' }} {{ 'a.b.c' | replace('.', '!') }} {{ 'aaa' | replace('a', 'b', 2) }} {{ 'abc' | replace('', '-') }} {{ '<b>' | safe }} {{ people | map(attribute='age', default=0) | list }}",
    "{{ 'a\nb\n\nc' | indent }}|{{ 'a\nb' | indent(2, true) }}|{{ s | attr('upper') is defined }}",
    # tests
    "{{ 1 is odd }} {{ 2 is even }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }} {{ 1 is number }} {{ true is number }} {{ true is boolean }} {{ true is integer }} {{ 1 is integer }} {{ 1.0 is float }} {{ 'a' is string }} {{ d is mapping }} {{ d is iterable }} {{ s is sequence }}",
    "{{ none is none }} {{ n is none }} {{ yes is true }} {{ n is true }} {{ false is false }} {{ n is eq 7 }} {{ n is equalto 7 }} {{ n is ne 7 }} {{ n is gt 3 }} {{ n is lt 3 }} {{ n is ge 7 }} {{ n is in [7] }} {{ 'a' is lower }} {{ 'A' is upper }} {{ '1' is lower }} {{ items is sameas items }} {{ range is callable }}",
    "{{ n is not none and n is not string }} {{ n is defined and missing is not defined }} {{ not missing is defined }} {{ (n is odd) == yes }} {{ n is odd + 0 }}",
    # methods
    "[{{ s.strip() }}] [{{ s.lstrip() }}] [{{ s.rstrip() }}] [{{ 'xyax'.strip('xy') }}] {{ t.split('-') }} {{ t.split('-', 1) }} {{ t.rsplit('-', 1) }} {{ ' a  b '.split() }} {{ ' a  b c '.split(none, 1) }} {{ ''.split() }} {{ ''.split('-') }} {{ 'a\nb\r\nc'.splitlines() }}",
    "{{ t.startswith('a') }} {{ t.startswith(('x', 'a-')) }} {{ t.endswith('d') }} {{ t.replace('-', '+') }} {{ t.replace('-', '+', 1) }} {{ t.find('c') }} {{ t.find('z') }} {{ t.rfind('-') }} {{ t.count('-') }} {{ '-'.join(words) }} {{ t.removeprefix('a-') }} {{ t.removesuffix('-d') }} {{ t.upper().lower().title() }} {{ 'hELLO'.capitalize() }}",
    "{{ '12'.isdigit() }} {{ 'a1'.isalpha() }} {{ 'a1'.isalnum() }} {{ ' '.isspace() }} {{ 'A'.isupper() }} {{ 'a'.islower() }} {{ ''.isdigit() }} {{ items.index(2) }} {{ items.count(1) }}",
    # statements
    "{% for i in items %}{{ loop.index }}:{{ loop.index0 }}:{{ loop.revindex }}:{{ loop.revindex0 }}:{{ loop.first }}:{{ loop.last }}:{{ loop.length }}:{{ i }}:{{ loop.previtem }}:{{ loop.nextitem }} {% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for a, b in [(1, 2), [3, 4]] %}{{ a + b }} {% endfor %}{% for (a, b) in [(1, 2)] %}{{ b }}{% endfor %}{% for c in 'h\u00e9' %}<{{ c }}>{% endfor %}{% for k in d %}{{ k }}{% endfor %}",
    "{% for i in items if i > 1 %}{{ i }}{{ loop.last }}{% else %}none{% endfor %}{% for i in [] %}x{% else %}empty{% endfor %}{% for i in missing %}x{% else %}absent{% endfor %}{% for i in items if i > 9 %}x{% else %}filtered{% endfor %}",
    "{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% for j in range(3) %}{% if j %}{% break %}{% endif %}.{% endfor %}{% endfor %} {{ range(2, 8, 3) | list }} {{ range(3, 0, -1) | list }}",
    "{% set a = 1 %}{% for i in items %}{% set a = a + i %}{{ a }} {% endfor %}{{ a }}{% if true %}{% set a = 9 %}{% endif %}{{ a }}{% set b, c = 1, 2 %}{{ b }}{{ c }}{% set ns = namespace(k=0, z='q') %}{% for i in items %}{% set ns.k = ns.k + i %}{% endfor %}{{ ns.k }}{{ ns.z }}",
    "{% set block %}  x {{ n }}\n{% endset %}[{{ block }}]{% set up | upper | trim %} abc {% endset %}[{{ up }}]",
    "{% macro m(a, b=2, c='z') %}{{ a }}-{{ b }}-{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, 3, 4) }} {{ m(c=5, a=6) }}{% set r = m(1) %}[{{ r | upper }}]{% macro rec(k) %}{{ k }}{% if k > 0 %}{{ rec(k - 1) }}{% endif %}{% endmacro %} {{ rec(3) }}",
    "{% for i in items %}{{ loop.cycle('a', 'b') }}{% if loop.changed(i > 1) %}!{% endif %}{% endfor %}{% for i in [1, 2] %}{% for j in [1] %}{{ loop.depth }}{% endfor %}{% endfor %}",
    "{% set a = 3 %}{% macro see() %}{{ a }}{{ n }}{% endmacro %}{% for i in [1] %}{% set a = 4 %}{{ see() }}{% endfor %}{% if n == 1 %}1{% elif n == 2 %}2{% elif n == 7 %}seven{% else %}else{% endif %}{% set ns = namespace() %}{% set ns.a = [] %}{% set ns.a = ns.a + [1] %}{{ ns.a }}",
    "{% set notns = {} %}{% set notns.x = 1 %}", "{% for a, b in [(1, 2, 3)] %}{% endfor %}", "{{ m(1, 2) }}{% macro m(a) %}{% endmacro %}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}", "{% for i in 5 %}{% endfor %}",
    "{{ dict(a=1, b=2) }} {{ dict(a=1).a }} {{ namespace(a=1).a }} {{ 'items' in d }} {{ d['items'] is defined }} {{ {'get': 3}['get'] }}",
    # white space
    "a\n{% if true %}\nb\n{% endif %}\nc\n", "a\n  {% if true %}\n  b\n  {% endif %}\n  c\n\n", "a  {%- if true -%}  b  {%- endif -%}  c", "a\n{{ n }}\nb\n  {{ n }}\n", "  {{- n -}}  \n x", "x {# c #} y\n{# line #}\nz\n   {# t #}\nq",
    "x\n {%+ if true +%}\n y{% endif %}", "a\r\nb\rc\n", "{% raw %}{{ n }} {% if %}{% endraw %} x", "{%- raw -%}  a  {%- endraw -%}  b", "  {% raw %}\n x\n  {% endraw %}\n y", "{{ '{{' }} {{ '%}' }} {{ {'a': {'b': 1}}.a.b }}", "\n\n{% set a = 1 %}\n\n{{ a }}\n\n",
    "{% for i in items %}\n    {{ i }}\n{% endfor %}\n", "x {%- set a = 1 %}\n  y", "{#- a -#}  b  {#- c #} d", "a {% if true %} b {% endif %} c", "", "{{ n }}", "{", "{ {% if true %}%}{% endif %} }}", "x{% if true %}\n\n{% endif %}y", "\t{% if true %}\t\n{% endif %}",
]

STRICT = [
    "Question: {{ question }}\nAnswer:", "{{question}}{{ absent }}", "{% if absent %}x{% endif %}", "{{ absent | default('d') }}", "{{ absent is defined }}", "{{ choices[0] }} {{ choices | join(' ') }}\n", "{{ question.strip().split(' ')[-1] }}",
    "{{ ['A', 'B'][label] }}", "{% for c in choices %}\n  {{ c }}\n{% endfor %}", "{{ question | trim | lower }}{{ 'x' ~ absent }}", "{{ absent == 1 }}", "{{ absent | upper }}", "{% for c in absent %}{% endfor %}", "{{ not absent }}", "  {% if true %}a{% endif %}\n\n",
]
ROW = {"question": "  What IS it? ", "choices": ["one", "two"], "label": 1}


class Fixed(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(DATE, datetime.timezone.utc)


def render(make, template, values):
    try:
        return make(template).render(**values)
    except Exception:  # noqa: BLE001: whatever the peer raises, an error is expected
        return None


def main():
    chat_template_utils.datetime = Fixed
    chat = chat_template_utils._compile_jinja_template
    strict_env = jinja2.Environment(loader=jinja2.BaseLoader(), undefined=jinja2.StrictUndefined)
    cases = []
    for name, template in CHAT.items():
        for which, messages in (("user", USER), ("system", SYSTEM), ("think", THINK), ("bad", BAD), ("parts", PARTS)):
            values = {"messages": messages, "bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": which != "system"}
            if which == "think":
                values["enable_thinking"] = False
            cases.append({"name": f"{name}/{which}", "template": template, "mode": "chat", "values": values, "out": render(chat, template, values)})
    for i, template in enumerate(SNIPPETS):
        cases.append({"name": f"snippet {i}", "template": template, "mode": "chat", "values": V, "out": render(chat, template, V)})
    for i, template in enumerate(STRICT):
        cases.append({"name": f"strict {i}", "template": template, "mode": "strict", "values": ROW, "out": render(strict_env.from_string, template, ROW)})
    rows = ",\n".join(json.dumps({k: c[k] for k in c if k != "values"} | {"values": {id(V): 0, id(ROW): 1}.get(id(c["values"]), c["values"])}) for c in cases)
    OUT.write_text(f'{{"peer": "jinja2 {jinja2.__version__}, transformers {transformers.__version__}", "date": {DATE},\n"shared": {json.dumps([V, ROW])},\n"cases": [\n{rows}\n]}}\n')


main()
