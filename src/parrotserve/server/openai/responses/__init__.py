"""OpenAI's Responses API: its bodies are turned into chats, and their answers into responses, which can be kept."""
