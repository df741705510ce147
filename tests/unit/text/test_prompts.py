import pytest

from racro_pl.text.captioner_prompt import PromptError, captioner_messages, tentative_messages
from racro_pl.text.choices import with_choices
from racro_pl.text.reasoner_prompt import joint_messages, reasoner_messages

SYSTEM = {
    "role": "system",
    "content": [
        {
            "type": "text",
            "text": "You are given an image and a relevant question. Based on the query, please describe the image in "
            "detail. Do not try to answer the question.",
        }
    ],
}
IMAGE = {"type": "image"}
REQUEST = "\nPlease describe the image. DO NOT try to answer the question!"


def text(value):
    return {"type": "text", "text": value}


@pytest.mark.parametrize(
    ("question", "images", "parts"),
    [
        ("How many?", 1, [IMAGE, text("Question: How many?" + REQUEST)]),
        ("How many?", 2, [IMAGE, IMAGE, text("Question: How many?" + REQUEST)]),
        ("How many?", 0, [text("Question: How many?" + REQUEST)]),
        ("<image>How many?", 1, [text("Question: "), IMAGE, text("How many?" + REQUEST)]),
        # Text around a tag stays as it is, spaces and line ends too.
        ("Is <image>\nlike <image> ?", 2, [text("Question: Is "), IMAGE, text("\nlike "), IMAGE, text(" ?" + REQUEST)]),
        # Two tags in a row leave no empty text between them.
        ("<image><image>Same?", 2, [text("Question: "), IMAGE, IMAGE, text("Same?" + REQUEST)]),
        (
            "How many?\nPlease try to answer the question with short words or phrases if possible.",
            1,
            [IMAGE, text("Question: How many?" + REQUEST)],
        ),
    ],
)
def test_captioner_prompt_is_exact(question, images, parts):
    assert captioner_messages(question, images) == [SYSTEM, {"role": "user", "content": parts}]


@pytest.mark.parametrize(("question", "images"), [("<image> a", 2), ("<image> <image>", 1), ("<image>", 0)])
def test_tags_that_do_not_match_the_images_are_refused(question, images):
    with pytest.raises(PromptError, match=rf"{question.count('<image>')} <image> tags and {images} images"):
        captioner_messages(question, images)


def test_reasoner_prompt_is_exact():
    question = "<image>How many?\nPlease try to answer the question with short words or phrases if possible."
    assert reasoner_messages(question, "Two cats {x}.") == [
        {"role": "system", "content": "You are a helpful assistant."},
        {
            "role": "user",
            "content": "### The detailed caption of the provided image: Two cats {x}.\n\n### Question: How many? "
            "Please think step by step. The final answer MUST BE put in \\boxed{}.",
        },
    ]


def test_options_are_written_after_the_question_once():
    written = with_choices("Which?", ["red", "blue"])
    assert written == "Which?\nOptions:\nA. red\nB. blue"
    assert with_choices(written, ["red", "blue"]) == written


@pytest.mark.parametrize(
    ("question", "choices"),
    [
        ("Which?", []),
        ("Which?", ["A", "B", "C"]),  # the options are drawn in the image
        ("Which?\n(A) red (B) blue", ["red", "blue"]),
    ],
)
def test_questions_that_need_no_options_stay(question, choices):
    assert with_choices(question, choices) == question


def test_tentative_prompt_is_exact():
    question = "How many?\nPlease try to answer the question with short words or phrases if possible."
    request = "How many? Please think step by step. The final answer MUST BE put in \\boxed{}."
    assert tentative_messages(question, 1) == [
        {"role": "system", "content": [text("You are a helpful assistant.")]},
        {"role": "user", "content": [IMAGE, text(request)]},
    ]
    assert tentative_messages("a <image> b", 1)[1]["content"] == [
        text("a "), IMAGE, text(" b Please think step by step. The final answer MUST BE put in \\boxed{}.")
    ]  # fmt: skip


def test_joint_prompt_is_exact_to_the_last_space():
    messages = joint_messages("<image>How many?", "Two cats {x}.", "It is \\boxed{2}.")
    assert messages[0] == {"role": "system", "content": "You are a helpful assistant."}
    assert messages[1]["content"] == (
        "In the following text, you will receive a detailed caption of an image and a relevant question. In addition, "
        "you will be provided with a tentative model response. You goal is to answer the question using these "
        "information.    \n                        \n### The detailed caption of the provided image: Two cats {x}.\n\n"
        "### Note that the caption might contain incorrect solutions, do not be misguided by them.\n\n"
        "### A problem to be solved: How many?\n\n### A tentative model response: It is \\boxed{2}.\n \n"
        "### Note that the above tentative response might be inaccurate (due to calculation errors, incorrect "
        "logic/reasoning and so on), under such a case, please ignore it and give your own solutions. However, if you "
        "do not have enough evidence to show it is wrong, please output the tentative response.\n\n"
        "### Please think step by step. The final answer MUST BE put in \\boxed{}."
    )
