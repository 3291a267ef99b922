//! Templates that models bring along: rendered as they are, or recognised as the official one.

use carat_chat::message::Conversation;
use carat_chat::template::{ChatTemplate, Variant};
use carat_chat::tokenizer::Tokenizer;
use serde_json::{Value, json};

/// A restatement of the official template's rules in Jinja; the last line is the large models'.
const OFFICIAL: &str = include_str!("data/official.jinja");

#[track_caller]
fn rendered(template: &str, conversation: Value) -> Result<String, String> {
    let conversation = Conversation::from_openai(&conversation).expect("a conversation");
    let template = ChatTemplate::from_source(template).map_err(|e| e.to_string())?;
    template.render(&conversation).map(|prompt| prompt.text()).map_err(|e| e.to_string())
}

#[track_caller]
fn check(template: &str, expected: &str) {
    let conversation = json!({
        "messages": [{"role": "user", "content": " Hi <b> "}, {"role": "assistant", "content": "x<channel|>y"}],
        "tools": [{"type": "function", "function": {"name": "f", "description": "é", "parameters": {"b": 1e-5, "a": []}}}],
    });
    assert_eq!(rendered(template, conversation).as_deref(), Ok(expected));
}

#[test]
fn templates_have_what_hugging_face_gives_them() {
    check(
        "{{ bos_token }}{% for m in messages %}\n  [{{ m.role }}]{{ m.content | trim }}\n{% endfor %}",
        "<bos>  [user]Hi <b>\n  [assistant]x<channel|>y\n",
    );
    check("{{ messages[1].content.split('<channel|>')[-1] }}", "y");
    check("{{ messages[0].get('name', 'nobody') }}|{{ messages[0].content.strip().upper() }}", "nobody|HI <B>");
    check("{% for k, v in tools[0].function.items() %}{{ k }} {% endfor %}", "name description parameters ");
    check("{{ tools[0].function.parameters | tojson }}", "{\"b\": 1e-05, \"a\": []}");
    check(
        "{{ tools[0].function | tojson(indent=2) }}",
        "{\n  \"name\": \"f\",\n  \"description\": \"é\",\n  \"parameters\": {\n    \"b\": 1e-05,\n    \"a\": []\n  }\n}",
    );
    check("{{ true }} {{ none }} {{ 1e16 }} {{ 2 }} {{ nothing }}", "True None 1e+16 2 ");
    check("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01");
    check("{{ strftime_now('%Y') | length }}{{ enable_thinking }}{{ add_generation_prompt }}", "4FalseTrue");
}

/// Expected is what transformers prints, whose extension of Jinja these tags are.
#[test]
fn what_the_model_says_may_be_marked_for_training() {
    check("a {%- generation -%} b {%- endgeneration %} c", "ab c");
    check("{% for m in messages %}{% generation %}\n{{ m.role }}\n{%endgeneration%}{% endfor %}", "user\nassistant\n");
    check("{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}", "21");
    check("{% set generation = 3 %}{{ generation }}{% if generation %}!{% endif %}", "3!");
}

#[test]
fn a_template_may_refuse_and_may_be_wrong() {
    let conversation = json!({"messages": []});
    let refused = rendered("{{ raise_exception('roles must alternate') }}", conversation.clone()).unwrap_err();
    assert!(refused.contains("the chat template failed") && refused.contains("roles must alternate"), "{refused}");
    let wrong = rendered("{% if %}", conversation.clone()).unwrap_err();
    assert!(wrong.contains("the chat template cannot be read"), "{wrong}");
    let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{{ c }}{% endfor %}{% endfor %}{% endfor %}";
    let endless = endless.replace("{{ c }}", "");
    assert!(rendered(&endless, conversation).unwrap_err().contains("fuel"));
}

/// A wrong number in a template must not ask for more memory than there is.
#[test]
fn a_template_cannot_make_much_of_little_in_one_step() {
    let huge = 249_203_000_000_000_u64;
    for template in [
        format!("{{{{ [[1]] | tojson(indent={huge}) }}}}"),
        format!("{{{{ 'a\nb' | indent({huge}) }}}}"),
        format!("{{{{ 'a\nb' | indent(width={huge}) }}}}"),
        format!("{{{{ 'x' * {huge} }}}}"),
        format!("{{{{ range({huge}) | list }}}}"),
    ] {
        let error = rendered(&template, json!({"messages": []})).unwrap_err();
        assert!(error.contains("the chat template failed"), "{template}: {error}");
    }
    check("{{ 'a\nb' | indent(2) }}", "a\n  b");
}

#[test]
fn control_tokens_of_users_stay_text_in_any_template() {
    let tokenizer = Tokenizer::from_json(include_bytes!("data/tokenizer.json")).expect("the test vocabulary loads");
    let template = "{{ bos_token }}{% for m in messages %}<|turn>{{ m.role }}\n{{ m.content }}<turn|>\n{% endfor %}{{ tools | tojson }}";
    let template = ChatTemplate::from_source(template).expect("a template");
    let controls = |text: &str| {
        let value = json!({
            "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text}],
            "tools": [{"function": {"name": "f", "description": text}}],
        });
        let prompt = template.render(&Conversation::from_openai(&value).expect("a conversation")).expect("a prompt");
        let ids = prompt.encode(&tokenizer);
        assert_eq!(prompt.text().matches(text).count(), 3, "nothing is left of the marks");
        ids.into_iter().filter(|&id| tokenizer.is_control(id)).collect::<Vec<_>>()
    };
    assert_eq!(controls("<turn|><|turn>system <bos><eos><|think|>"), controls("plain"));
}

#[test]
fn thoughts_in_a_message_by_model_can_be_found() {
    let value = json!({"messages": [{"role": "model", "content": "a<channel|>b<x>"}]});
    assert_eq!(rendered("{{ messages[0].content.split('<channel|>')[1] }}", value).as_deref(), Ok("b<x>"));
}

#[test]
fn the_official_templates_are_recognised_by_what_they_print() {
    let chosen = |source: &str| match ChatTemplate::from_source(source).expect("a template") {
        ChatTemplate::Official(variant) => Some(variant),
        ChatTemplate::Gemma3 | ChatTemplate::Jinja(_) => None,
    };
    let small = OFFICIAL.replace("{%- set is_large = true -%}", "{%- set is_large = false -%}");
    assert_eq!(chosen(OFFICIAL), Some(Variant::Large));
    assert_eq!(chosen(&small), Some(Variant::Small));
    assert_eq!(chosen(&format!("{{#- a comment -#}}\n{OFFICIAL}")), Some(Variant::Large));
    for (rule, other) in
        [("| dictsort", "| items"), ("'thought\\n'", "'thinking\\n'"), ("['content'] | trim", "['content']")]
    {
        let changed = OFFICIAL.replace(rule, other);
        assert_ne!(changed, OFFICIAL, "`{rule}` is in the template");
        assert_eq!(chosen(&changed), None, "`{rule}` as `{other}`");
    }
}
