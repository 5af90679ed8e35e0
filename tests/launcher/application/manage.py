"""A Django project in one file: `python manage.py runserver`."""

import os
import sys

import django
from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse
from django.urls import path
from work import perform


def export(request: HttpRequest, number: int) -> HttpResponse:
    """Export a report."""
    del request
    perform(number)
    return HttpResponse("done")


def index(request: HttpRequest) -> HttpResponse:
    """Answer the question whether the server is up."""
    del request
    return HttpResponse("up")


urlpatterns = [path("", index), path("<int:number>", export)]

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "manage")
    settings.configure(DEBUG=True, ROOT_URLCONF="manage", ALLOWED_HOSTS=["*"], SECRET_KEY="test")
    django.setup()
    execute_from_command_line(sys.argv)
