"""The forms of tasks by name: one file per form, and one line here."""

from trainables.tasks.forms.classification import CLASSIFICATION
from trainables.tasks.forms.form import Form
from trainables.tasks.forms.regression import REGRESSION

FORMS: dict[str, Form] = {form.name: form for form in (CLASSIFICATION, REGRESSION)}
