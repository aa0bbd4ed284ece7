"""What a user can say, typed and checked; knows neither torch nor any other heavy package."""
