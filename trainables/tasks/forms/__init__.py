"""All forms of tasks by name. A new form is a file in this folder and an entry of `FORMS`."""

from trainables.tasks.forms.classification import CLASSIFICATION
from trainables.tasks.forms.form import Form
from trainables.tasks.forms.regression import REGRESSION

FORMS: dict[str, Form] = {form.name: form for form in (CLASSIFICATION, REGRESSION)}
