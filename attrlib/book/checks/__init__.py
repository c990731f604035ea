"""One module per chapter; each public function checks one exercise of it.

The function's name is the exercise's, with underscores: exercise
"what-is-an-attribution/another-unit" is checked by `what_is_an_attribution.another_unit(answer)`.
"""
