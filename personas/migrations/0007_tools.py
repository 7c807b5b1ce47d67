import django.core.validators
import django.db.models.deletion
from django.db import migrations, models

import personas.tool_models


class Migration(migrations.Migration):
    dependencies = [
        ("personas", "0006_phrase_uploads"),
    ]

    operations = [
        migrations.AddField(
            model_name="persona",
            name="tool_threshold",
            field=models.FloatField(
                blank=True,
                help_text="Probability of yes from which a tool is called, 0.01 to 0.99. Empty: the server's.",
                null=True,
                validators=[
                    django.core.validators.MinValueValidator(0.01),
                    django.core.validators.MaxValueValidator(0.99),
                ],
            ),
        ),
        migrations.CreateModel(
            name="Tool",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "name",
                    models.CharField(
                        help_text="The name in the toolcall frame.",
                        max_length=64,
                        unique=True,
                        validators=[
                            django.core.validators.RegexValidator(
                                "\\A[A-Za-z_][A-Za-z0-9_-]{0,63}\\Z", "Letters, digits, _ and -; at most 64 characters."
                            )
                        ],
                    ),
                ),
                (
                    "description",
                    models.TextField(
                        blank=True,
                        help_text="One or two sentences for the model: the effect of the tool and when to call it.",
                        validators=[django.core.validators.MaxLengthValidator(1000)],
                    ),
                ),
                (
                    "parameters",
                    models.JSONField(
                        blank=True,
                        default=dict,
                        help_text='JSON schema of the arguments: {"type": "object", "properties": {…}}. Empty: no arguments.',
                        validators=[personas.tool_models.validate_parameters],
                    ),
                ),
                ("enabled", models.BooleanField(default=True)),
                (
                    "is_global",
                    models.BooleanField(
                        default=True, help_text="Applies to every persona, attached or not.", verbose_name="global"
                    ),
                ),
                ("version", models.PositiveIntegerField(default=1, editable=False)),
                ("created", models.DateTimeField(auto_now_add=True)),
                ("updated", models.DateTimeField(auto_now=True)),
                (
                    "personas",
                    models.ManyToManyField(
                        blank=True,
                        help_text="Personas that have the tool if not global.",
                        related_name="tools",
                        to="personas.persona",
                    ),
                ),
            ],
            options={
                "ordering": ("name",),
            },
        ),
        migrations.CreateModel(
            name="ToolExample",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "text",
                    models.TextField(
                        help_text="The line to decide on.",
                        validators=[django.core.validators.MaxLengthValidator(4000)],
                        verbose_name="line",
                    ),
                ),
                (
                    "history",
                    models.TextField(
                        blank=True,
                        help_text="User: … and Assistant: … lines, oldest first. Empty: the line stands alone.",
                        validators=[django.core.validators.MaxLengthValidator(20000)],
                        verbose_name="lines before",
                    ),
                ),
                (
                    "group",
                    models.CharField(
                        blank=True,
                        help_text="Lines of one meaning share a group. Empty: grouped by similarity.",
                        max_length=100,
                    ),
                ),
                ("note", models.CharField(blank=True, max_length=200)),
                ("key", models.CharField(editable=False, max_length=64, unique=True)),
                ("created", models.DateTimeField(auto_now_add=True)),
                ("updated", models.DateTimeField(auto_now=True)),
                (
                    "tool",
                    models.ForeignKey(
                        blank=True,
                        help_text="Empty: the line wants no tool.",
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="examples",
                        to="personas.tool",
                    ),
                ),
            ],
            options={
                "verbose_name": "tool example",
                "ordering": ("-updated", "-pk"),
            },
        ),
        migrations.CreateModel(
            name="ToolHead",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("training", "Training"),
                            ("failed", "Failed"),
                            ("candidate", "Waits for acceptance"),
                            ("in_force", "In force"),
                            ("retired", "Retired"),
                        ],
                        default="training",
                        editable=False,
                        max_length=10,
                    ),
                ),
                ("data", models.BinaryField(default=b"")),
                ("classes", models.JSONField(default=list, editable=False, verbose_name="tools")),
                ("encoder", models.CharField(blank=True, editable=False, max_length=300)),
                ("feature_version", models.PositiveIntegerField(default=0, editable=False)),
                (
                    "threshold",
                    models.FloatField(
                        default=0.5,
                        help_text="Probability of yes from which the tool is called.",
                        validators=[
                            django.core.validators.MinValueValidator(0.01),
                            django.core.validators.MaxValueValidator(0.99),
                        ],
                    ),
                ),
                ("trained_threshold", models.FloatField(default=0.5, editable=False)),
                ("accuracy", models.FloatField(editable=False, null=True)),
                ("recall", models.FloatField(editable=False, null=True)),
                ("false_alarms", models.FloatField(editable=False, null=True)),
                ("details", models.JSONField(default=dict, editable=False)),
                ("error", models.CharField(blank=True, editable=False, max_length=500)),
                ("created", models.DateTimeField(auto_now_add=True)),
                ("finished", models.DateTimeField(editable=False, null=True)),
            ],
            options={
                "verbose_name": "tool classifier",
                "ordering": ("-pk",),
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("state", "in_force")), fields=("state",), name="one_tool_head_in_force"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("threshold__gt", 0), ("threshold__lt", 1)),
                        name="tool_head_threshold_in_range",
                    ),
                ],
            },
        ),
        migrations.AddConstraint(
            model_name="tool",
            constraint=models.CheckConstraint(
                condition=models.Q(("name", ""), _negated=True), name="tool_name_not_empty"
            ),
        ),
        migrations.AddConstraint(
            model_name="toolexample",
            constraint=models.CheckConstraint(
                condition=models.Q(("text", ""), _negated=True), name="tool_example_not_empty"
            ),
        ),
    ]
