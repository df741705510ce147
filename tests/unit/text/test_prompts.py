import pytest

from racro_pl.text.captioner_prompt import PromptError, captioner_messages
from racro_pl.text.choices import with_choices
from racro_pl.text.reasoner_prompt import reasoner_messages

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


def test_options_are_written_behind_the_question_once():
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
